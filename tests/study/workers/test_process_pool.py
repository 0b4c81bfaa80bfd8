"""Workers in processes of their own: the same answers, and no hang whatever becomes of one."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from children import PATIENCE_SECONDS
from conftest import assert_same
from study.builds import digits_mlp, unlucky
from volano.errors import ExploreError, RunError, UsageError
from volano.study.workers.messages import Assignment, Lost, Report, Trial
from volano.study.workers.process_pool import ProcessPool, can_fork
from volano.study.workers.worker import Worker

FORKS = can_fork(threads=1)


def trial(number, state=None, *, lr=0.1):
    return Trial(number=number, params={"lr": lr, "dropout": 0.1 * number}, state=state)


def assignment(number, *trials, share=1.0):
    return Assignment(number=number, trials=trials, share=share)


def maker(build=digits_mlp):
    return functools.partial(Worker, build, device="cpu", threads=1, engine="loop")


def processes(num=2, build=digits_mlp, *, is_forked=FORKS):
    return ProcessPool([maker(build)] * num, is_forked=is_forked)


def finished(executor, num=1):
    """The next answers, by worker."""
    answers = {}
    while len(answers) < num:
        answer = executor.next_finished(PATIENCE_SECONDS)
        assert answer is not None
        answers[answer[0]] = answer[1]
    return answers


@pytest.fixture
def marks(tmp_path, monkeypatch):
    """One process dies."""
    (tmp_path / "one").touch()
    monkeypatch.setenv("MARKS", str(tmp_path))
    return tmp_path


def open_files():
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


class TestAnswers:
    def test_they_are_those_of_a_worker_here(self):
        before = open_files()
        with processes() as executor:
            assert executor.num_workers == 2
            assert executor.next_finished(5.0) is None  # nobody has anything to do
            executor.submit(0, assignment(0, trial(0), trial(1), share=0.5))
            executor.submit(1, assignment(1, trial(2), share=0.5))
            first = finished(executor, 2)
            assert executor.next_finished() is None
            states = {
                outcome.number: outcome.state
                for report in first.values()
                for outcome in report.outcomes
            }
            executor.submit(0, assignment(2, trial(1, states[1]), trial(2, states[2])))
            second = finished(executor)[0]
        worker = maker()()
        assert [outcome.step for outcome in second.outcomes] == [16, 16]
        for outcome, expected in zip(
            second.outcomes, worker.run(assignment(0, trial(1), trial(2))).outcomes, strict=True
        ):
            assert outcome.metrics == expected.metrics
            assert_same(outcome.state, expected.state)
        assert open_files() == before  # states come as bytes, not as shared memory

    def test_a_timeout_passes(self):
        with processes(1, unlucky) as executor:
            executor.submit(0, assignment(0, trial(0, lr=0.35)))  # sleeps
            assert executor.next_finished(0.2) is None
            start = time.monotonic()
        assert time.monotonic() - start < 300  # ended in the middle of its work, not after it

    def test_started_anew(self):
        with processes(1, is_forked=False) as executor:
            executor.submit(0, assignment(0, trial(0)))
            assert finished(executor)[0].outcomes[0].step == 16

    @pytest.mark.skipif(not FORKS, reason="processes are not forked here")
    def test_a_closure_goes_over_with_a_fork(self):
        rates = []

        def build(trial):
            rates.append(trial.suggest_float("lr", 0.001, 1.0))
            return digits_mlp(trial)

        with processes(1, build) as executor:
            executor.submit(0, assignment(0, trial(0)))
            assert finished(executor)[0].outcomes[0].failure is None
        assert not rates  # it was another process


class TestWhatGoesWrong:
    @pytest.mark.parametrize(
        ("lr", "reason"), [(0.9, "exit code 3"), (0.45, "SIGKILL, often for want of memory")]
    )
    def test_one_dies_the_other_goes_on(self, marks, lr, reason):
        with processes(build=unlucky) as executor:
            executor.submit(0, assignment(7, trial(0, lr=lr)))
            executor.submit(1, assignment(8, trial(1)))
            answers = finished(executor, 2)
            assert isinstance(answers[0], Lost)
            assert answers[0].assignment == 7
            assert reason in answers[0].reason
            assert isinstance(answers[1], Report)
            executor.submit(0, assignment(9, trial(0, lr=lr)))  # by a new process
            again = finished(executor)[0]
            assert again.outcomes[0].step == 16

    def test_killed_from_outside_in_the_middle(self):
        with processes(build=unlucky) as executor:
            executor.submit(0, assignment(0, trial(0, lr=0.35)))
            executor.submit(1, assignment(1, trial(1)))
            os.kill(executor._workers[0]._process.pid, signal.SIGKILL)
            answers = finished(executor, 2)
            assert "SIGKILL" in answers[0].reason
            assert isinstance(answers[1], Report)

    def test_killed_while_it_has_nothing_to_do(self):
        with processes(1) as executor:
            executor.submit(0, assignment(0, trial(0), share=0.1))
            finished(executor)
            os.kill(executor._workers[0]._process.pid, signal.SIGKILL)
            executor._workers[0]._process.join()
            executor.submit(0, assignment(1, trial(0)))
            assert isinstance(finished(executor)[0], Report)

    def test_errors_of_the_study_are_raised_here_and_the_worker_goes_on(self, digits):
        def build(trial):
            task = digits_mlp(trial)
            if trial.suggest_float("lr", 0.001, 1.0) > 0.5:
                object.__setattr__(
                    task, "data", torch.utils.data.TensorDataset(*(t[:64] for t in digits))
                )
            return task

        if not FORKS:
            pytest.skip("processes are not forked here")
        with processes(1, build) as executor:
            executor.submit(0, assignment(0, trial(0), trial(1, lr=0.9)))
            with pytest.raises(ExploreError, match="same data"):
                executor.next_finished(PATIENCE_SECONDS)
            executor.submit(0, assignment(1, trial(2)))
            assert isinstance(finished(executor)[0], Report)

    def test_a_defect_is_told_with_its_place(self):
        with ProcessPool([_Broken], is_forked=FORKS) as executor:
            executor.submit(0, assignment(0, trial(0)))
            with pytest.raises(RunError, match=r"(?s)KeyError: 'nothing'.*in run"):
                executor.next_finished(PATIENCE_SECONDS)

    def test_a_build_that_cannot_be_imported_elsewhere_is_refused(self):
        with pytest.raises(UsageError, match="import the study's build function.*module:build"):
            processes(1, lambda trial: digits_mlp(trial), is_forked=False)


class _Broken:
    def run(self, assignment):
        return {}["nothing"]


# Loads everything once, then forks a driver for each way to end, which ends as an interpreter does:
# with what is registered for its end. What a driver says goes to a file.
DRIVERS = """
import os, pathlib, signal, sys, traceback
sys.path.insert(0, {tests!r})
from study.workers.test_process_pool import FORKS, assignment, processes, trial
from study.builds import unlucky

def drive(end, is_forked):
    # One where each is a new interpreter.
    num = 2 if is_forked else 1
    executor = processes(num, build=unlucky, is_forked=is_forked)
    for number in range(num):
        executor.submit(number, assignment(number, trial(number, lr=0.35)))
    print(*(process._process.pid for process in executor._workers), flush=True)
    exec(end, {{"executor": executor, "os": os, "signal": signal}})

if __name__ == "__main__":
    children = []
    for name, (end, is_forked) in {ends!r}.items():
        child = os.fork()
        if child == 0:
            os.setsid()
            with open(name, "w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            drive(end, is_forked)
            sys.exit()
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(codes)
"""
CONTROL_C = """
# Who is started in the background is told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.killpg(0, signal.SIGINT)
    executor.next_finished(60)
except KeyboardInterrupt:
    print(*(process.is_alive() for process in executor._workers))
    executor.close()
"""
ENDS = {
    "killed": ("os.kill(os.getpid(), 9)", FORKS),
    "not closed": ("pass", FORKS),
    "exit": ("raise SystemExit(4)", FORKS),
    "control c": (CONTROL_C, FORKS),
    "control c, spawned": (CONTROL_C, False),
}


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Way to end -> the driver's exit code and what it printed."""
    folder = tmp_path_factory.mktemp("drivers")
    script = folder / "drivers.py"
    script.write_text(DRIVERS.format(tests=str(Path(__file__).parents[2]), ends=ENDS))
    drivers = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert drivers.returncode == 0, drivers.stderr
    codes = json.loads(drivers.stdout)
    return {
        name: (code, (folder / name).read_text()) for name, code in zip(ENDS, codes, strict=True)
    }


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
class TestWhenTheDriverEnds:
    @pytest.mark.parametrize(("name", "code"), [("killed", -9), ("not closed", 0), ("exit", 4)])
    def test_nobody_is_left(self, ended, name, code):
        found, output = ended[name]
        assert found == code, output
        pids = [int(pid) for pid in output.split()]
        assert len(pids) == 2
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(map(gone, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(map(gone, pids))

    @pytest.mark.parametrize(
        ("name", "alive"), [("control c", "True True"), ("control c, spawned", "True")]
    )
    def test_control_c_reaches_the_driver_alone(self, ended, name, alive):
        code, output = ended[name]
        assert code == 0, output
        assert output.splitlines()[1:] == [alive]
