"""The number of workers follows from what batches cost, and measuring leaves no trace."""

import itertools
import os
import threading
import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset

from volano.data import Order, choose_workers
from volano.data.feed import worker_count


class Digits(Dataset):
    """Real pictures; each takes ``seconds`` to make, without using a core."""

    def __init__(self, seconds):
        self.pixels = torch.tensor(load_digits().data[:256], dtype=torch.uint8)
        self.seconds = seconds
        self.opened = False

    def __len__(self):
        return 256

    def __getitem__(self, index):
        self.opened = True  # as a dataset that opens its file when first asked
        if self.seconds:
            time.sleep(self.seconds)
        return self.pixels[index]


def test_gathering_needs_no_worker():
    chosen = choose_workers(TensorDataset(torch.zeros(40, 2)), None, 8, num_cores=8)
    assert chosen.workers == 0
    assert chosen.reason.startswith("gathering a batch takes ")


def test_dear_examples_get_workers_and_nothing_is_opened_here():
    data = Digits(0.005)
    chosen = choose_workers(data, None, 8, num_cores=8)
    assert chosen.workers >= 1
    assert "through 2 workers a batch " in chosen.reason
    assert not data.opened


def test_two_cores_get_one_worker():
    assert choose_workers(Digits(0.005), None, 8, num_cores=2).workers == 1


def test_a_short_run_is_measured_less():
    chosen = choose_workers(Digits(0.005), None, 8, num_cores=8, num_steps=20)
    assert chosen.workers == 1
    assert "not tried in so short a run" in chosen.reason


@pytest.mark.parametrize(
    ("made", "exchange", "cores", "workers"),
    [
        (0.26, 0.002, 16, 15),  # 128 pictures of 2 ms
        (2.05, None, 16, 15),  # so long that an exchange cannot matter
        (0.02, 0.003, 16, 7),  # more would wait for the exchange
        (0.26, 0.002, 3, 2),
        (0.26, 0.002, 128, 32),
    ],
)
def test_cores_beside_an_accelerator_are_used(made, exchange, cores, workers, monkeypatch):
    monkeypatch.setattr(worker_count._Trials, "_with_one", lambda _: (made, exchange))
    chosen = choose_workers(Digits(0.0), None, 8, num_cores=cores, cpu_trains=False)
    assert chosen.workers == workers


def test_one_batch_is_all_there_is():
    assert choose_workers(Digits(0.005), None, 256, num_cores=2, num_steps=1).workers == 1


def test_what_goes_wrong_is_left_to_the_run():
    def collate(examples):
        raise ValueError("no")

    chosen = choose_workers(Digits(0.0), collate, 8, num_cores=2)
    assert chosen.workers in (0, 1)


def test_batches_that_take_seconds_get_a_worker(monkeypatch):
    monkeypatch.setattr(worker_count, "_MOST_SECONDS", 0.05)
    chosen = choose_workers(Digits(0.03), None, 8, num_cores=8)
    assert chosen.workers == 1
    assert (
        "the exchange with a worker is negligible; more workers were not tried on batches"
        in chosen.reason
    )


def test_what_is_measured_is_the_rings_own_work(monkeypatch):
    asked, looked_at = [], []

    class Recorded(worker_count.Workers):
        def made(self, keys):
            keys = list(keys)
            asked.append(keys)
            return super().made(iter(keys))

    monkeypatch.setattr(worker_count, "Workers", Recorded)
    monkeypatch.setattr(
        worker_count,
        "unpacked",
        lambda *args, old=worker_count.unpacked: looked_at.append(old(*args)),
    )
    choose_workers(Digits(0.005), None, 8, num_cores=8, seed=4)
    assert len(asked) >= 2
    order = Order(num_examples=256, batch_size=8, seed=4)
    steps = [key for keys in asked for key in keys]
    # No trial finds what another has read before, and no batch is a part of one.
    for step, key in enumerate(steps):
        assert np.array_equal(key.indices, order.key(step).indices)
        assert len(key.indices) == 8
    assert all(torch.is_tensor(batch) for batch in looked_at)
    assert looked_at  # batches came in slots


class Elsewhere(Digits):
    """Does something else in another process than the one that made it."""

    def __init__(self, what):
        super().__init__(0.0)
        self.what, self.here = what, os.getpid()

    def __getitem__(self, index):
        if os.getpid() != self.here:
            self.what()
        return super().__getitem__(index)


class TestDataThatCannotLiveInAForkedProcess:
    def test_it_raises(self):
        def fail():
            raise RuntimeError("cannot be used after a fork")

        chosen = choose_workers(Elsewhere(fail), None, 8, num_cores=8)
        assert chosen.workers == 0
        assert "cannot be used after a fork" in chosen.reason

    def test_it_raises_now_and_then(self):
        calls = itertools.count()

        def fail():
            if next(calls) % 4:
                raise RuntimeError("cannot be used after a fork")

        chosen = choose_workers(Elsewhere(fail), None, 8, num_cores=8)
        assert chosen.workers == 0
        assert "Examples must be fetchable in a worker process" in chosen.reason

    def test_it_dies(self):
        chosen = choose_workers(Elsewhere(lambda: os._exit(3)), None, 8, num_cores=8)
        assert chosen.workers == 0
        assert "ended with exit code 3" in chosen.reason

    def test_it_waits_for_ever(self, monkeypatch):
        monkeypatch.setattr(worker_count, "_PATIENCE_SECONDS", 0.3)
        lock = threading.Lock()
        with lock:  # as a thread of a library holds one at the moment of the fork
            chosen = choose_workers(Elsewhere(lock.acquire), None, 8, num_cores=8)
        assert chosen.workers == 0
        assert "must make a batch within 0 s" in chosen.reason
