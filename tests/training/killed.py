"""Trains runs that are killed again and again, for test_kills.py, which compares what they come to.

A fresh trainer is forked for every life of a run. Moments are drawn from the seed: after some time,
at the n-th change to the run's files (which is within a checkpoint more often than not), at the
n-th batch that is trained on or evaluated.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits

import volano
from children import Forked, start_ranks
from conftest import Quiet, classification_with_accuracy, make_mlp
from volano.record.run_folder import PAGE

KILLS_PER_RUN = 10
_WAYS = ("file", "time", "file", "evaluation", "file", "step", "term")
# Audit events (docs.python.org/3/library/audit_events.html) of changes to files. "open" also comes
# before reads.
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
    """One life of a run: begins or goes on, and dies at the ``count``-th event of its way, or
    finishes."""
    if way == "step":
        _countdown["training"] = count
    elif way == "evaluation":
        _countdown["evaluation"] = 1 + count % 4
    elif way == "file":
        die_at_change(path, count)
    task, safety = make_task(), volano.Safety(save_every="3st")
    plan = volano.Plan.baseline().pin(workers=workers)
    if (path / "run.json").exists() and _status(path) == "finished" and (path / PAGE).exists():
        return  # it died between the page and its own end
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


def fork(path: Path, way: str, count: int, seconds: float, workers: int, ranks: int = 1) -> str:
    """Returns how one life ended: its way, ``"finished"``, or the trouble it had."""
    if ranks > 1:
        return _fork_ranks(path, way, count, seconds, workers, ranks)
    child = Forked(path.with_suffix(".log"), live, path, way, count, workers)
    if way in ("time", "term"):
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL if way == "time" else signal.SIGTERM)
    code = child.wait()
    if code < 0:
        return way
    if code:
        return f"trouble: {child.output.read_text()}"
    return "finished" if _status(path) == "finished" else way


def _fork_ranks(path: Path, way: str, count: int, seconds: float, workers: int, ranks: int) -> str:
    """The same for a life of several ranks, one of which dies; as torchrun's agent does, this
    process then ends the others."""
    # The first writes the files; what a batch meets, the last one meets.
    victim = {"file": 0, "time": count % ranks}.get(way, ranks - 1)
    started = start_ranks(
        path.parent, path.name, ranks,
        lambda rank: (live, path, way if rank == victim else "none", count, workers),
    )  # fmt: skip
    if way in ("time", "term"):
        time.sleep(seconds)
        for child in started if way == "term" else [started[victim]]:
            os.kill(child.pid, signal.SIGKILL if way == "time" else signal.SIGTERM)
    code = started[victim].wait()
    for child in started:
        child.wait(180 if code == 0 else 10)
    # A signal may also find one that has given its handlers back, at its very end.
    if code < 0 or (way == "term" and any((child.code or 0) < 0 for child in started)):
        return way
    if any(child.code for child in started):
        return "trouble: " + "\n".join(child.output.read_text() for child in started)
    return "finished" if _status(path) == "finished" else way


def _status(path: Path) -> str:
    return json.loads((path / "run.json").read_text())["status"]


@dataclass(frozen=True)
class Report:
    """A run that nobody killed, those that were killed, and how many of their lives ended in which
    way."""

    whole: Path
    runs: list[Path]
    ends: collections.Counter[str]


def kill(root: Path, num_kills: int, *, seed: int = 0, workers: int = 0, ranks: int = 1) -> Report:
    """Kills until it is enough, and lets every run come to its end."""
    draw = random.Random(seed)
    ends: collections.Counter[str] = collections.Counter()
    start = time.perf_counter()
    assert fork(root / "whole", "none", 0, 0.0, workers, ranks) == "finished"
    seconds = time.perf_counter() - start
    runs, num_killed = [], 0
    while num_killed < num_kills:
        path = root / f"run-{len(runs)}"
        runs.append(path)
        end, lives = "", 0
        while end != "finished":
            dies = lives < KILLS_PER_RUN and num_killed < num_kills
            way = _WAYS[num_killed % len(_WAYS)] if dies else "none"
            # A third of a life on average, so that a run sees several.
            end = fork(
                path,
                way,
                draw.randint(1, 90 if way == "file" else 30),
                draw.uniform(0, 0.6 * seconds),
                workers,
                ranks,
            )
            assert not end.startswith("trouble"), end
            ends[end] += 1
            lives += 1
            num_killed += end in _WAYS
    return Report(root / "whole", runs, ends)
