"""Observers of studies hear only what they ask for."""

import inspect

import pytest

from volano.record.study import BestTrial
from volano.study.observe import RungDecision, StudyInfo, StudyObserver, Summary
from volano.study.progress import PlainStudyProgress, RichStudyProgress

SUMMARY = Summary(
    num_trials=4, num_asked=2, num_running=1, num_pruned=0, num_complete=1, num_failed=0,
    best=BestTrial(number=1, params={}, value=0.5, share=1.0), steps=10, steps_per_second=1.0,
    seconds=10.0, seconds_left=None,
)  # fmt: skip


def test_every_method_may_be_left_as_it_is():
    observer = StudyObserver()
    info = StudyInfo(
        name="s", folder="f", num_trials=4, num_before=0, minutes=None, metric="loss",
        direction="minimize", shares=(1.0,), num_workers=1, sampler="TPESampler",
    )  # fmt: skip
    observer.on_start(info)
    observer.on_trials(SUMMARY)
    observer.on_rung(RungDecision(rung=0, share=1.0, values={1: 0.5}, kept=(1,), cut=()))
    observer.on_notice("a word")
    observer.close()


def test_nothing_is_in_hand_unless_it_is_said():
    assert SUMMARY.training == {}
    with pytest.raises(AttributeError):
        SUMMARY.steps = 3


@pytest.mark.parametrize("progress", [PlainStudyProgress, RichStudyProgress])
def test_what_shows_a_study_overrides_what_there_is(progress):
    hooks = {name for name in vars(StudyObserver) if not name.startswith("_")}
    own = {name for name in vars(progress) if name.startswith("on_")}
    assert own <= hooks
    for name in own:
        assert inspect.signature(getattr(progress, name)).parameters.keys() == (
            inspect.signature(getattr(StudyObserver, name)).parameters.keys()
        )
