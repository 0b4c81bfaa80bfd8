"""Settings of a study are checked when they are made."""

from __future__ import annotations

import pytest

from volano.errors import UsageError
from volano.study.settings import StudySettings


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"trials": 0}, "`trials` must be a whole number above 0; got 0"),
        ({"trials": 2.0}, "`trials` must be a whole number above 0; got 2.0"),
        (
            {"trials": 9, "minutes": 0},
            "`minutes` must be a number above 0, at most .*, or None; got 0",
        ),
        ({"trials": 9, "minutes": float("inf")}, "`minutes` must be a number above 0"),
        ({"trials": 9, "minutes": 10**400}, "`minutes` must be a number above 0"),
        (
            {"trials": 9, "direction": "down"},
            "`direction` must be 'minimize' or 'maximize'; got 'down'",
        ),
        ({"trials": 9, "metric": ""}, "`metric` must name a figure"),
        ({"trials": 9, "seed": -1}, "`seed` must be a whole number"),
        ({"trials": 9, "quorum": 0.0}, "`quorum` must be above 0"),
        ({"trials": 9, "eta": 1}, "`eta` must be a whole number of at least 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, rule):
    with pytest.raises(UsageError, match=rule):
        StudySettings(**fields)


@pytest.mark.parametrize(
    ("trials", "width"), [(1, 1), (9, 9), (12, 10), (27, 10), (81, 27), (128, 43)]
)
def test_one_cohort_is_a_third_but_no_less_than_a_sampler_draws_at_random_anyway(trials, width):
    assert StudySettings(trials=trials).width == width


def test_a_study_goes_on_with_its_own_rungs_and_may_take_more_trials_and_time():
    before = StudySettings(trials=27).to_json()
    settings = StudySettings(trials=400, minutes=3).going_on(before)
    assert settings.shares == StudySettings(trials=27).shares
    assert (settings.trials, settings.minutes) == (400, 3)


def test_other_settings_are_refused_by_name():
    before = StudySettings(trials=27).to_json()
    with pytest.raises(UsageError, match="eta was 3 and is 2; shares was .* and is "):
        StudySettings(trials=27, eta=2, rungs=2).going_on(before)
    with pytest.raises(
        UsageError,
        match="metric was 'loss' and is 'accuracy'; direction was 'minimize' and is 'max",
    ):
        StudySettings(trials=27, metric="accuracy", direction="maximize").going_on(before)
