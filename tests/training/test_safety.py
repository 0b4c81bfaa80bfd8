"""Settings by which a run looks after itself."""

import pytest

from volano.errors import CheckpointError, UsageError
from volano.training import Safety


class TestSettings:
    @pytest.mark.parametrize(
        "value", ["", "60", "0s", "0st", "-5s", "1e9s", "nans", "5ep", "5 s", None, 60]
    )
    def test_an_interval_that_is_none(self, value):
        with pytest.raises(
            UsageError,
            match="`save_every` must be seconds or steps above 0; got .*Write 60s or 500st",
        ):
            Safety(save_every=value)

    @pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
    def test_a_count_that_is_none(self, value):
        with pytest.raises(UsageError, match="`skip_bad_steps` must be a whole number"):
            Safety(skip_bad_steps=value)

    def test_there_and_back(self):
        safety = Safety(save_every="2.5s", skip_bad_steps=4)
        assert Safety.from_json(safety.to_json()) == safety
        assert (safety.save_seconds, safety.save_steps) == (2.5, None)
        assert Safety.from_json(None) == Safety()
        with pytest.raises(CheckpointError, match="safety settings"):
            Safety.from_json({"save_every": "60s", "colour": 1})
