"""Trials as their events tell them: whole ones for going on with a study, whatever is there for a
report."""

import json
import math

import pytest

from volano.errors import CheckpointError, UsageError
from volano.record.study import read_space, read_study, trials_of

ASKED = {"event": "asked", "trial": 3, "params": {"lr": 0.1}}
RUNG = {"event": "rung", "trial": 3, "rung": 0, "share": 0.5, "step": 10, "epoch": 1.0,
        "value": 2.0, "metrics": {"loss": 2.0}, "training_loss": None, "seconds": 0.5}  # fmt: skip
ENDED = {"event": "ended", "trial": 3, "state": "pruned", "value": 2.0, "reason": None}


def test_a_rung_that_was_trained_again_counts_once():
    (trial,) = trials_of([ASKED, RUNG, {**RUNG, "value": 1.5}, ENDED, {**ASKED, "trial": "3"}])
    assert (trial.number, trial.state, trial.value, trial.reason) == (3, "pruned", 1.5, None)
    assert math.isnan(trial.rungs[0].training_loss)
    assert trials_of([RUNG, ENDED]) == ()


@pytest.mark.parametrize(
    "event",
    [
        {**ASKED, "params": None},
        {**RUNG, "rung": "0"},
        {**RUNG, "step": True},
        {**RUNG, "share": 10**400},
        {**RUNG, "metrics": {"loss": "low"}},
        {name: value for name, value in RUNG.items() if name != "training_loss"},
        {**ENDED, "state": 3},
    ],
)
def test_what_is_gone_on_with_is_whole_and_what_is_reported_is_what_is_there(event):
    with pytest.raises(CheckpointError, match="trials.jsonl of a study must hold whole events"):
        trials_of([ASKED, event])
    (trial,) = trials_of([ASKED, event], is_tolerant=True)
    assert trial.number == 3


def test_any_files_make_a_record(tmp_path):
    with pytest.raises(UsageError, match=r"A study's folder must hold study\.json"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_text('{"schema_version": 7, "settings": [], "status": 3}')
    (tmp_path / "trials.jsonl").write_text(
        "".join(
            json.dumps(event) + "\n"
            for event in [ASKED, {**RUNG, "value": 10**400}, {"event": "lost", "trial": []}]
        )
        + "[" * 100_000
    )
    (tmp_path / "journal.log").write_text(
        '{"op_code": 5, "param_name": "lr", "distribution": "["}\n'
    )
    record = read_study(tmp_path)
    assert (record.status, record.metric, record.find_best()) == ("3", "loss", None)
    assert record.missing == (
        "study.json is of schema version 7; this page was made for version 1",
        "trials.jsonl: 1 of 4 lines are damaged and left out",
    )
    assert len(record.losses) == 1
    assert read_space(tmp_path) == {}
