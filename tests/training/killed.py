"""Trains runs that are killed again and again; a child process of test_kills.py, which compares what they come to.

    python killed.py FOLDER NUM_KILLS SEED WORKERS

Loads torch once, then forks a fresh trainer for every life of a run. Moments are drawn from the seed: after some time,
at the n-th change to the run's files (which is within a checkpoint more often than not), at the n-th batch that is
trained on or evaluated. Prints one JSON object: the runs, and how many lives ended in which way.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits

import volano
from conftest import Quiet, classification_with_accuracy, make_mlp

KILLS_PER_RUN = 10
_WAYS = ("file", "time", "file", "evaluation", "file", "step", "term")
# Audit events (docs.python.org/3/library/audit_events.html) of changes to files. "open" also comes before reads.
_CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
_countdown = {"training": -1, "evaluation": -1}


def objective(model: Any, batch: Any) -> volano.Loss:
    """The conftest's, unless this is the batch at which the process dies."""
    mode = "training" if model.training else "evaluation"
    _countdown[mode] -= 1
    if _countdown[mode] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return classification_with_accuracy(model, batch)


def augment(batch: Any, generator: torch.Generator) -> Any:
    """A little noise."""
    return [batch[0] + 0.01 * torch.rand(batch[0].shape, generator=generator), batch[1]]


def make_task() -> volano.Task:
    """48 steps with everything that has a state; three evaluations and sixteen checkpoints."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    return volano.Task(
        model=functools.partial(make_mlp, dropout=0.3),
        objective=objective,
        data=torch.utils.data.TensorDataset(inputs[:512], targets[:512]),
        valid=torch.utils.data.TensorDataset(inputs[512:640], targets[512:640]),
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-2),
        schedule=volano.cosine(warmup=0.1),
        batch_size=32,
        duration="3ep",
        ema_decay=0.95,
        clip_norm=1.0,
        augment=augment,
        seed=3,
    )


def live(path: Path, way: str, count: int, workers: int) -> None:
    """One life of a run: begins or goes on, and dies at the ``count``-th event of its way, or finishes."""
    if way == "step":
        _countdown["training"] = count
    elif way == "evaluation":
        _countdown["evaluation"] = 1 + count % 4
    elif way == "file":
        die_at_change(path, count)
    torch.set_num_threads(1)
    task, safety = make_task(), volano.Safety(save_every="3st")
    plan = volano.Plan.baseline().pin(workers=workers)
    if not (path / "run.json").exists() or _status(path) == "starting":
        volano.train(task, plan=plan, out=path, observer=Quiet(), safety=safety)
    else:
        volano.resume(path, task=task, observer=Quiet())


def die_at_change(path: Path, count: int) -> None:
    """Lets this process die before the ``count``-th change to what lies under ``path``."""
    left = [count]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES and str(arguments[0]).startswith(str(path)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def fork(path: Path, way: str, count: int, seconds: float, workers: int) -> str:
    """How one life ended: its way, ``"finished"``, or the trouble it had."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            live(path, way, count, workers)
            code = 0
        finally:
            os._exit(code)
    if way in ("time", "term"):
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL if way == "time" else signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return way
    if os.WEXITSTATUS(status):
        return "trouble"
    return "finished" if _status(path) == "finished" else way


def _status(path: Path) -> str:
    return json.loads((path / "run.json").read_text())["status"]


def main(root: Path, num_kills: int, seed: int, workers: int) -> None:
    """Kills until it is enough, and lets every run come to its end."""
    draw = random.Random(seed)
    ends: collections.Counter[str] = collections.Counter()
    start = time.perf_counter()
    assert fork(root / "whole", "none", 0, 0.0, workers) == "finished"
    seconds = time.perf_counter() - start
    runs, num_killed = [], 0
    while num_killed < num_kills:
        path = root / f"run-{len(runs)}"
        runs.append(str(path))
        end, lives = "", 0
        while end != "finished":
            dies = lives < KILLS_PER_RUN and num_killed < num_kills
            way = _WAYS[num_killed % len(_WAYS)] if dies else "none"
            # A third of a life on average, so that a run sees several.
            end = fork(path, way, draw.randint(1, 90 if way == "file" else 30), draw.uniform(0, 0.6 * seconds), workers)
            ends[end] += 1
            lives += 1
            if end == "trouble":
                break
            num_killed += end in _WAYS
    print(json.dumps({"whole": str(root / "whole"), "runs": runs, "ends": dict(ends), "seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
