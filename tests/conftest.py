"""Fixtures, and a guard: a test that leaves threads, processes, settings or random state behind
fails."""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import volano
from volano.training.checkpoints.checkpoint import list_checkpoints, load_checkpoint

# Children of the tests compute with one thread too, from their first line on: threads of OpenMP
# wait by spinning, so that two processes of two threads on two cores are many times slower than one
# after the other.
os.environ["OMP_NUM_THREADS"] = "1"

# The tests are about the CPU, and about devices that stand in: an accelerator of this machine is
# hidden from them, or half of them would choose it. Those in tests/gpu see it, in children.
HIDING = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ZE_AFFINITY_MASK": "-1"}
SEEN = {name: os.environ.get(name) for name in HIDING}
if any(getattr(torch.version, name, None) for name in ("cuda", "hip", "xpu")):
    os.environ.update(HIDING)

# A shell starts what runs in its background deaf to Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

FASHION_MNIST = Path(os.environ.get("VOLANO_FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))


def threads_since(before: set[threading.Thread]) -> list[str]:
    names = [one.name for one in set(threading.enumerate()) - before if one.is_alive()]
    return [name for name in names if name.startswith(("Thread-", "ThreadPool"))]


def matmul_precision() -> str:
    with warnings.catch_warnings():  # torch 2.9 warns whoever asks
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        return torch.get_float32_matmul_precision()


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compares the process before and after a test."""
    # Small nets gain nothing from a second thread, and the tests run side by side.
    torch.set_num_threads(1)

    def state() -> dict[str, Any]:
        return {
            # pytest notes the test there, torch its cache the first time that torch._dynamo is
            # loaded.
            "environment": {
                k: v
                for k, v in os.environ.items()
                if k not in ("PYTEST_CURRENT_TEST", "TORCHINDUCTOR_CACHE_DIR")
            },
            "torch threads": torch.get_num_threads(),
            "matmul precision": matmul_precision(),
            "grad mode": torch.is_grad_enabled(),
            "hooks on all optimizers": (
                *_global_optimizer_pre_hooks,
                *_global_optimizer_post_hooks,
            ),
            "SIGINT": signal.getsignal(signal.SIGINT),
            "SIGTERM": signal.getsignal(signal.SIGTERM),
        }

    before, threads = state(), set(threading.enumerate())
    yield
    if request.node.get_closest_marker("compiles"):
        return
    assert state() == before
    if threads_since(threads):
        gc.collect()  # an executor's threads end with it, when they have heard of it
        for one in set(threading.enumerate()) - threads:
            one.join(timeout=0.0 if one.daemon else 5.0)
    assert not threads_since(threads)
    assert not multiprocessing.active_children()


@pytest.fixture
def environment_kept() -> Iterator[None]:
    """The variables are put back that other libraries set when they are imported."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", autouse=True)
def loaded_modules_are_collected_once() -> None:
    """A search collects garbage several times, and would look at a million objects of torch and
    pytest each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def packs_are_compiled_on_request_only(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor is slow, compiling would pay in a test too: for minutes, and it leaves much
    behind."""
    if not request.node.get_closest_marker("compiles"):
        monkeypatch.setattr("volano.packing.choose_engine._COMPILE_SECONDS", 1e6)


@pytest.fixture(scope="session", autouse=True)
def nothing_waits_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and a short training waits for the disk as long as it computes: what
    is written is looked at through the system's cache, by other processes too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def plans_of_the_tests_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the planner remembers goes to a folder of the tests, in child processes too."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits: pixels fp32 [1797, 64] in 0..1, labels int64 [1797]."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


def make_mlp(*, dropout: float = 0.0) -> nn.Module:
    """A small net for the digits."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))


def classification(model: nn.Module, batch: Any) -> torch.Tensor:
    """Mean cross-entropy."""
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels)


def classification_with_accuracy(model: nn.Module, batch: Any) -> volano.Loss:
    """The same as a Loss with a metric."""
    inputs, labels = batch
    logits = model(inputs)
    return volano.Loss(
        total=nn.functional.cross_entropy(logits, labels, reduction="sum"),
        weight=len(labels),
        metrics={"accuracy": (logits.argmax(1) == labels).float().mean()},
    )


def runs_in_bf16(net: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor) -> bool:
    """Asks the processor: some have no bf16 kernel for recurrent layers, forwards or backwards."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            out = net(inputs)
        out.float().sum().backward()
    except RuntimeError:
        return False
    return True


@pytest.fixture(scope="session")
def make_task(digits: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """``make_task(**fields)``: a task on 512 digits, 64 held out, 2 epochs of 16 steps."""
    pixels, labels = digits

    def make(**fields: Any) -> volano.Task:
        base: dict[str, Any] = {
            "model": make_mlp,
            "objective": classification,
            "data": torch.utils.data.TensorDataset(pixels[:512], labels[:512]),
            "valid": torch.utils.data.TensorDataset(pixels[512:576], labels[512:576]),
            "optimizer": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
            "batch_size": 32,
            "duration": "2ep",
            "seed": 3,
        }
        return volano.Task(**{**base, **fields})

    return make


class Quiet(volano.Observer):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self.ends: list[str] = []

    def on_log(self, record: dict[str, Any]) -> None:
        self.logs.append(record)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.evaluations.append(record)

    def on_notice(self, text: str) -> None:
        self.notices.append(text)

    def on_end(self, status: str) -> None:
        self.ends.append(status)


class StopAt(Quiet):
    """Sends itself a signal when a step has been logged."""

    def __init__(self, step: int, name: signal.Signals = signal.SIGTERM) -> None:
        super().__init__()
        self.step, self.name = step, name

    def on_log(self, record: dict[str, Any]) -> None:
        super().on_log(record)
        if record["step"] == self.step:
            os.kill(os.getpid(), self.name)


@pytest.fixture
def quiet() -> Quiet:
    """An observer that prints nothing."""
    return Quiet()


_TIMED = {"examples_per_second", "memory_bytes", "data_wait_share"}


def experiment_records(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl without what depends on time and machine."""
    return [
        {name: value for name, value in json.loads(line).items() if name not in _TIMED}
        for line in (path / "metrics.jsonl").read_text().splitlines()
    ]


def assert_same_runs(one: Path, other: Path) -> None:
    """The same lines, and the same last checkpoint, bitwise."""
    assert experiment_records(one) == experiment_records(other)
    (_, state), (_, expected) = (
        load_checkpoint(list_checkpoints(path / "checkpoints")[-1]) for path in (one, other)
    )
    assert_same(state, expected)


def assert_same(value: Any, expected: Any) -> None:
    """Trees of tensors and plain values, bitwise."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(value, expected)
    elif isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for name in expected:
            assert_same(value[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            assert_same(one, other)
    else:
        assert value == expected
