"""Several processes from the command line: a rank that dies, one that raises, Ctrl-C, torchrun."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from children import PATIENCE_SECONDS, Forked, as_command
from volano.cli import commands, main
from volano.cli.main import app

# A task whose second rank ends as FATE says, at its 25th step, the first time that it is started.
TASK = """
import functools, os, signal, time, torch, volano

draws = torch.Generator().manual_seed(0)
pixels = torch.rand(700, 64, generator=draws)
data = torch.utils.data.TensorDataset(pixels, torch.randint(10, (700,), generator=draws))
calls = 0

def model():
    first, last = torch.nn.Linear(64, 32), torch.nn.Linear(32, 10)
    return torch.nn.Sequential(first, torch.nn.Dropout(0.2), torch.nn.ReLU(), last)

def objective(model, batch):
    global calls
    calls += model.training
    is_first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    if calls == 25 and os.environ.get("RANK") == "1" and is_first_start:
        if os.environ.get("FATE") == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FATE") == "raises":
            raise ValueError("an objective that breaks")
    if os.environ.get("FATE") == "slow":
        time.sleep(0.05)
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

task = volano.Task(
    model=model, objective=objective, data=torch.utils.data.Subset(data, range(640)),
    valid=torch.utils.data.Subset(data, range(640, 700)),
    optimizer=functools.partial(torch.optim.SGD, lr=0.1),
    batch_size=32, duration="60st", seed=1,
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dying.py").write_text(TASK)
    return tmp_path


def start(
    folder: Path, *arguments: str, fate: str = "", torchrun: bool = False
) -> subprocess.Popen[str]:
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if torchrun else []
    )
    environment = {**os.environ, "FATE": fate, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "volano", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture
def here(folder, capfd, monkeypatch):
    """``here("train", ..., fate="killed")``: the command in this process, with its ranks in
    processes of their own -> exit code, standard output and error of all."""
    commands.register(app)
    monkeypatch.chdir(folder)

    def call(*arguments: str, fate: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("FATE", fate)
        return main.run([*arguments]), *capfd.readouterr()

    return call


KILLED = ("train", "dying.py:task", "--nproc", "2", "--no-plan", "--save-every", "10st")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two ranks that torchrun started and nothing ended early, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "dying.py").write_text(TASK)
    arguments = ("train", "dying.py:task", "--no-plan", "--save-every", "10st", "--out", "run")
    child = start(folder, *arguments, torchrun=True)
    try:
        out, err = child.communicate(timeout=PATIENCE_SECONDS)
    finally:
        child.kill()
    assert child.returncode == 0, err
    return folder / "run", out


def assert_same_weights(one: Path, other: Path) -> None:
    mine, theirs = (load_file(path / "model.safetensors") for path in (one, other))
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())


def test_a_rank_that_is_killed_ends_the_others_and_is_named_and_the_run_goes_on(
    here, folder, whole
):
    code, _, err = here(*KILLED, "--out", "cut", fate="killed")
    assert code == 1
    assert "rank 1: ended by SIGKILL" in err
    assert "Continue with --nproc 2: volano resume cut" in err
    # Unless it was ended before it could say so.
    assert ("rank 0: another rank has gone" in err) == ("rank 0: " in err)
    assert "Traceback" not in err
    record = json.loads((folder / "cut" / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("failed", "rank 1: ended by SIGKILL")
    assert here("resume", "cut", "--trust", "--nproc", "2")[0] == 0
    assert_same_weights(whole[0], folder / "cut")


@pytest.mark.slow
def test_a_run_that_starts_again_by_itself_ends_as_one_that_went_through(here, folder, whole):
    code, out, _ = here(*KILLED, "--out", "again", "--max-restarts", "1", fate="killed")
    assert code == 0
    assert "run: again" in out
    assert_same_weights(whole[0], folder / "again")


def test_what_a_rank_raises_is_told(here):
    code, _, err = here(
        "train", "dying.py:task", "--nproc", "2", "--no-plan", "--out", "run", fate="raises"
    )
    assert code == 1
    assert "rank 1: ValueError: an objective that breaks" in err


def test_ctrl_c_stops_all_ranks_and_the_run_goes_on_alone(here, folder):
    arguments = ("train", "dying.py:task", "--nproc", "2", "--no-plan", "--out", "run")
    child = Forked(folder / "log", as_command, folder, *arguments, environment={"FATE": "slow"})
    while "\nstep" not in child.output.read_text() and child.is_running():
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGINT)
    assert child.wait() == 0, child.output.read_text()
    said = child.output.read_text()
    assert (folder / "code").read_text() == "1", said
    assert "resume: volano resume run" in said
    assert json.loads((folder / "run" / "run.json").read_text())["status"] == "stopped"
    code, out, _ = here("resume", "run", "--code", "dying.py:task")
    assert code == 0
    assert "valid loss" in out


def ranks_below(pid: int) -> list[int]:
    """The processes of ranks that a command has started, as the system tells."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, file.read_text().split()):
            is_rank = b"rank_main" in Path(f"/proc/{child}/cmdline").read_bytes()
            found += [child] if is_rank else ranks_below(child)
    return sorted(found)


def running(folder: Path) -> subprocess.Popen[str]:
    """Two ranks that take steps."""
    arguments = ("train", "dying.py:task", "--nproc", "2", "--no-plan", "--out", "run")
    child = start(folder, *arguments, fate="slow")
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("task: "):
            return child
    raise AssertionError("it has not begun")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system tells no children")
def test_a_rank_that_is_stopped_does_not_hold_the_run(folder):
    child = running(folder)
    os.kill(ranks_below(child.pid)[1], signal.SIGSTOP)
    assert child.stderr is not None
    watchdog = threading.Timer(PATIENCE_SECONDS, child.kill)
    watchdog.start()
    said = next((line for line in child.stderr if "stood still" in line), "")
    watchdog.cancel()
    assert "rank 1 (pid " in said
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 1
    assert "interrupted before the end" in err
    assert not [line for line in err.splitlines() if line.startswith("W")]  # of torch's agent


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system tells no children")
def test_a_second_ctrl_c_ends_all_ranks(folder):
    child = running(folder)
    ranks = ranks_below(child.pid)
    os.kill(ranks[1], signal.SIGSTOP)  # they cannot end by themselves
    child.send_signal(signal.SIGINT)
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=PATIENCE_SECONDS)
    assert child.returncode == 1
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]


def test_torchrun_starts_the_same_command_and_only_one_rank_prints(whole):
    path, out = whole
    assert out.count("run: run") == 1
    assert json.loads((path / "run.json").read_text())["world_size"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nproc", "0"), "--nproc must be a number of processes, at least 1; got 0"),
        (("--nproc", "3"), "The number of ranks must divide the batch.*3 ranks and batch_size=32"),
        (
            ("--max-restarts", "2"),
            "--max-restarts is for several processes only; got 2 with one. Give --nproc",
        ),
        (
            ("--nproc", "2", "--sharding", "half"),
            "--sharding must be one of none, full, hybrid; got 'half'",
        ),
        (
            ("--nproc", "2", "--sharding", "full", "--memory-format", "channels_last"),
            "sharding='full' needs contiguous parameters.*memory_format='channels_last'",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, arguments, message, capsys, monkeypatch):
    commands.register(app)
    monkeypatch.chdir(folder)
    assert main.run(["train", "dying.py:task", *arguments]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert not (folder / "runs").exists()
