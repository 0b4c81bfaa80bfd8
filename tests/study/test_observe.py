"""Observers of studies hear only what they ask for."""

import inspect
from collections import Counter
from types import SimpleNamespace

import pytest

from study.standin import Heard
from volano.record.study import BestTrial
from volano.study.observe import Announcements, RungDecision, StudyInfo, StudyObserver, Summary
from volano.study.progress import PlainStudyProgress, RichStudyProgress
from volano.study.settings import StudySettings
from volano.study.successive_halving import SuccessiveHalving
from volano.study.time_left import TimeEstimate

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


class Ledger(SimpleNamespace):
    """The accounts of a study of four trials, two of which have ended."""

    def noticed(self, text):
        is_new = text not in self.texts
        self.texts.append(text)
        return is_new

    def count(self, state):
        return {"running": 2, "complete": 1, "failed": 1}.get(state, 0)


@pytest.fixture
def said():
    settings, heard = StudySettings(trials=9, minutes=1.0), Heard()
    heard.stands = []
    heard.on_trials = heard.stands.append
    rungs = SuccessiveHalving(settings.shares, settings.eta, settings.direction)
    time_left = TimeEstimate(rungs.shares, settings.eta)
    ledger = Ledger(texts=[], trials=dict.fromkeys(range(4)), best=None, steps=0, seconds=50.0)
    return Announcements(settings, ledger, rungs, time_left, heard), heard, ledger, time_left


def test_a_notice_is_told_once_and_failures_with_a_few_reasons(said):
    announcements, heard, _, _ = said
    for text in ("one", "one", "two"):
        announcements.notice(text)
    for number in range(20):
        announcements.failed(number, f"reason {number // 2}")
    assert heard.notices == [
        "one", "two", *(f"trial {2 * n} failed: reason {n}" for n in range(5)),
        "more trials failed, see trials.jsonl",
    ]  # fmt: skip


def test_where_a_study_stands(said):
    announcements, heard, ledger, time_left = said
    announcements.stand([0, 1], Counter({1: 2}), 5)
    ledger.steps, announcements.training_seconds = 80, 4.0
    time_left.note(4, 0, 1000.0)
    announcements.stand([0, 1], Counter(), 5)
    first, second = heard.stands
    assert (first.num_trials, first.num_asked, first.num_running, first.num_failed) == (9, 4, 2, 1)
    assert (first.training, first.seconds_left) == ({1.0: 2}, None)
    # The minutes leave ten seconds.
    assert (second.steps_per_second, second.seconds_left) == (20.0, 10.0)
