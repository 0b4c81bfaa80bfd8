"""A study as a value, opened again from its folder."""

from __future__ import annotations

import pytest

from study.standin import run, told
from volano.errors import ExploreError, UsageError
from volano.study.study import Study


def test_the_study_can_be_opened_again(tmp_path):
    study = run(tmp_path / "s")
    again = Study.open(tmp_path / "s")
    assert again.trials == study.trials
    assert again.best == study.best
    assert again.trial(3) == study.trials[3]
    assert told(again) == told(study)
    assert again.path("report.html") == tmp_path / "s" / "report.html"
    with pytest.raises(ExploreError, match="A trial must be named by its number; got 99"):
        again.trial(99)
    with pytest.raises(UsageError, match=r"A study's folder must hold study\.json"):
        Study.open(tmp_path)
