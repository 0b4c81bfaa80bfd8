"""Planning without training, through the public door."""

import sys

import pytest

import volano
from volano.errors import UsageError


class TestExplain:
    def test_of_a_task_with_what_is_measured(self, make_task):
        found = volano.explain(make_task(), forbid={"compile": True}, analyze=True)
        assert found.actual["step"] > 0
        assert found.actual["memory_bytes"] > 0
        assert found.verdict == "FITS"
        assert abs(found.actual["memory_error"]) < 0.05

    def test_nothing_is_run_to_be_measured_where_nothing_fits(self, make_task, monkeypatch):
        # Would fail.
        monkeypatch.setattr(sys.modules["volano.api.explain"], "measured_beside", None)
        found = volano.explain(make_task(), budget=1000, forbid={"compile": True}, analyze=True)
        assert found.verdict == "NO"
        assert "nothing was measured" in found.notices[-1]

    def test_what_has_no_plan(self):
        with pytest.raises(UsageError, match="in seconds, without a plan. Train it, or name"):
            volano.explain("text", "texts.csv", classify=True)
        with pytest.raises(UsageError, match="with many devices in `on`; got none"):
            volano.explain("text", nodes=2)

    def test_an_application_under_a_budget_that_is_too_small(self):
        found = volano.explain(
            "image", minutes=0.2, budget=1000, forbid={"compile": True}, device="cpu"
        )
        assert found.verdict == "NO"
        assert found.needed > 1000

    def test_on_another_device_nothing_runs(self, make_task):
        with pytest.raises(UsageError, match="needs the device itself"):
            volano.explain(make_task(), on="H100", analyze=True)
        with pytest.raises(UsageError, match="for one device"):
            volano.explain(make_task(), on="H100", device="cpu")

    def test_no_task(self):
        with pytest.raises(UsageError, match=r"an application or a task of your own"):
            volano.explain(3)
