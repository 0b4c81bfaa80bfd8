"""A study that is killed at any moment ends as the study that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from children import Forked
from study.test_whole_studies import results, study
from training.killed import die_at_change
from volano.record.study_folder import STUDY, StudyFolder
from volano.study.study import Study


def live(path: Path, count: int) -> None:
    """One life of a study: begins or goes on, and dies at the ``count``-th change to its files, or
    finishes."""
    if count:
        die_at_change(path, count)
    begun = (path / STUDY).is_file() and "settings" in json.loads((path / STUDY).read_text())
    study(path, resume=begun)


def is_finished(path: Path) -> bool:
    """Whether a study's folder says that it has ended."""
    main = path / STUDY
    return main.is_file() and json.loads(main.read_text()).get("status") == "finished"


def kill(root: Path, num_kills: int, seed: int = 0) -> tuple[list[Path], int]:
    """Kills until it is enough, and lets every study come to its end."""
    draw, paths, num_killed = random.Random(seed), [], 0
    while num_killed < num_kills:
        path, code = root / f"study-{len(paths)}", -1
        paths.append(path)
        # Killed after its end, it has nothing left to resume.
        while code and not is_finished(path):
            is_timed, dies = num_killed % 3 == 2, num_killed < num_kills
            count = draw.randint(1, 120) if dies and not is_timed else 0
            child = Forked(root / "log", live, path, count)
            if dies and is_timed:
                time.sleep(draw.uniform(0.0, 2.0))
                os.kill(child.pid, signal.SIGKILL)
            code = child.wait()
            assert code <= 0, child.output.read_text()
            num_killed += code < 0
    return paths, num_killed


def check(root: Path, num_kills: int) -> None:
    expected = results(study(root / "whole"))
    paths, num_killed = kill(root, num_kills)
    assert num_killed >= num_kills
    for path in paths:
        found = Study.open(path)
        assert found.status == "finished"
        assert results(found) == expected
        assert StudyFolder.open(path).read_json(STUDY)["counts"]["complete"] == 3


def test_killed_twice(tmp_path):
    check(tmp_path, 2)


@pytest.mark.slow
def test_killed_twelve_times(tmp_path):
    check(tmp_path, 12)
