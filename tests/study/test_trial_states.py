"""Where live trials stand, on the disk."""

from __future__ import annotations

import pytest
import torch

from volano.errors import ExploreError
from volano.study.trial_states import TrialStates


def state(step):
    return {
        "step": step,
        "model": {"weight": torch.arange(3.0)},
        "optimizer": {"state": {}},
        "ema": None,
    }


def test_what_is_saved_is_loaded_and_the_rest_is_removed(tmp_path):
    states = TrialStates(tmp_path / "states")
    for number in (3, 12, 100):
        states.save(number, state(number))
    (tmp_path / "states" / "trial-00000004.partial").write_bytes(b"half")
    states.keep_only({12, 100, 7})
    assert [path.name for path in sorted((tmp_path / "states").iterdir())] == [
        "trial-00000012.pt",
        "trial-00000100.pt",
    ]
    loaded = states.load(12)
    assert loaded is not None
    assert loaded["step"] == 12
    assert torch.equal(loaded["model"]["weight"], torch.arange(3.0))
    assert states.load(3) is None


@pytest.mark.parametrize("content", [b"", b"torn", b"\x80\x02}q\x00.", b"PK\x03\x04"])
def test_what_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "trial-00000001.pt").write_bytes(content)
    assert not TrialStates(tmp_path).load(1)


def test_a_state_that_cannot_be_written_says_so_and_leaves_the_old_one(tmp_path, monkeypatch):
    states = TrialStates(tmp_path)
    states.save(1, state(5))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        ExploreError, match=r"must be writable; got .*No space left on device.*`resume`"
    ):
        states.save(1, state(9))
    loaded = states.load(1)
    assert loaded is not None
    assert loaded["step"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["trial-00000001.pt"]
