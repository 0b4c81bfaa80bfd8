"""What is told of a study: each notice once, a few reasons of failures, where it stands."""

from collections import Counter
from types import SimpleNamespace

import pytest

from study.standin import Heard
from volano.study.announcements import Announcements
from volano.study.settings import StudySettings
from volano.study.successive_halving import SuccessiveHalving
from volano.study.time_left import TimeEstimate


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
