"""Whole studies: the driver, its workers and their packs together."""

import dataclasses
import functools
import os
import signal

import pytest
import torch
from torch.utils.data import Subset

from study.builds import digits_mlp
from volano.errors import ExploreError
from volano.record.study_folder import StudyFolder
from volano.study.observe import StudyObserver
from volano.study.run_study import run_study
from volano.study.settings import StudySettings
from volano.study.workers.make_executor import make_executor
from volano.study.workers.process_pool import can_fork

SETTINGS = StudySettings(trials=9, eta=3, rungs=2, seed=1)


class Heard(StudyObserver):
    """Keeps the notices."""

    def __init__(self):
        self.notices = []

    def on_notice(self, text):
        self.notices.append(text)


def study(path, build=digits_mlp, observer=None, resume=False, **where):
    where = {"device": "cpu", "engine": "loop", "threads": 1, **where}
    make = functools.partial(make_executor, build, **where)
    folder = StudyFolder(path)
    return run_study(build, SETTINGS, folder, make, observer=observer, resume=resume)


def results(study):
    return [(trial.number, dict(trial.params), trial.state, trial.curve) for trial in study.trials]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return study(tmp_path_factory.mktemp("here") / "study")


def test_in_this_process(expected):
    assert expected.status == "finished"
    assert [trial.state for trial in expected.trials].count("complete") == 3
    assert expected.best.share == 1.0
    assert sum(pack["steps"] for pack in expected.packs) == 9 * 8 + 3 * 8


def test_two_processes_find_the_same(expected, tmp_path):
    assert results(study(tmp_path / "study", nproc=2)) == results(expected)


@pytest.mark.skipif(not can_fork(threads=1), reason="processes are not forked here")
def test_workers_that_make_other_data_are_found_out(tmp_path):
    splits = {}

    def build(trial):
        task = digits_mlp(trial)
        if os.getpid() not in splits:  # a split that nobody has seeded
            order = torch.randperm(128, generator=torch.Generator().manual_seed(os.getpid()))
            splits[os.getpid()] = Subset(task.data, order[:96].tolist())
        return dataclasses.replace(task, data=splits[os.getpid()])

    with pytest.raises(ExploreError, match="train, and be evaluated, on the same data; got data"):
        study(tmp_path / "study", build, nproc=2)


@pytest.mark.skipif(not can_fork(threads=1), reason="processes are not forked here")
def test_a_worker_that_is_killed_changes_nothing(expected, tmp_path):
    driver, mark = os.getpid(), tmp_path / "mark"
    mark.touch()

    def build(trial):
        if os.getpid() != driver and trial.number == 4 and mark.exists():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return digits_mlp(trial)

    heard = Heard()
    assert results(study(tmp_path / "study", build, heard, nproc=2)) == results(expected)
    assert any("SIGKILL" in notice for notice in heard.notices)


@pytest.mark.slow  # three actors import torch
def test_actors_find_the_same(expected, tmp_path):
    pytest.importorskip("ray")
    assert results(study(tmp_path / "study", ray="local", nproc=2)) == results(expected)
