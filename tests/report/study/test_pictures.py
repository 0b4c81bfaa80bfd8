"""A study's parameters as axes."""

from __future__ import annotations

import pytest

from report.study.test_page import make_study
from volano.record.study import read_study
from volano.report.study.pictures import parameter_axis


def test_axes_follow_the_space(tmp_path):
    trials = read_study(make_study(tmp_path / "s")).trials
    log = parameter_axis("lr", trials, {"low": 0.001, "high": 1.0, "log": True})
    assert log.is_log
    assert [label for _, label in log.ticks] == ["0.001", "0.01", "0.1", "1"]
    assert [place for place, _ in log.ticks] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert not parameter_axis("lr", trials, {"low": 0.001, "high": 1.0, "log": False}).is_log
    choices = parameter_axis("width", trials, {"choices": [32, 64, 128]})
    assert choices.ticks == (
        (pytest.approx(1 / 6), "32"),
        (0.5, "64"),
        (pytest.approx(5 / 6), "128"),
    )
