"""Every feed gives bitwise the same batches, whatever makes them."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from volano.data import (
    Arrays,
    Fetcher,
    Key,
    MemoryMapped,
    Order,
    Quarantine,
    RingFeed,
    can_be_resident,
    make_feed,
    rows_of,
)
from volano.device import Device
from volano.errors import DataError, PlanError
from volano.task import tensors_of

ORDER = Order(num_examples=40, batch_size=8, seed=5)
CPU = Device("cpu")


class Computed(Dataset):
    """A dataset that computes its examples, as dicts."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"x": np.full((3,), index, dtype=np.uint8), "y": index * 0.5, "name": f"n{index}"}


class Noisy(Computed):
    """One that draws from all three global generators."""

    def __getitem__(self, index):
        return torch.tensor(
            [float(index), random.random(), np.random.rand(), torch.rand(()).item()]
        )


class Corrupt(Computed):
    """One with examples that cannot be read."""

    broken = frozenset({3, 17})

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("truncated")
        return torch.tensor(index)

    def path_of(self, index):
        return f"file{index}.png"


def run(data, *, feed="ring", workers=0, collate=None, start=0, quarantine=None):
    quarantine = quarantine or Quarantine(len(data))
    made = make_feed(
        data, collate, CPU, feed=feed, workers=workers, prefetch=2, seed=9, quarantine=quarantine
    )
    return list(made.batches(ORDER.keys(start, 10)))


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "data", [Computed(), Noisy(), Corrupt()], ids=["computed", "noisy", "corrupt"]
)
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_move_a_batch(data, workers):
    same(run(data), run(data, workers=workers))


@pytest.mark.parametrize(
    "data", [Computed(), Noisy(), Corrupt()], ids=["computed", "noisy", "corrupt"]
)
def test_a_later_start_gives_the_same_rest(data):
    same(run(data)[4:], run(data, start=4))


def test_resident_and_ring_agree():
    tensors = TensorDataset(torch.arange(80, dtype=torch.uint8).view(40, 2), torch.arange(40))
    same(run(tensors, feed="resident"), run(tensors))
    same(run(tensors, feed="resident"), run(tensors, workers=1))
    batch = run(tensors)[0]
    assert batch[0].dtype == torch.uint8  # narrow types travel
    assert torch.equal(batch[1], torch.from_numpy(ORDER.key(0).indices.copy()))


class TestResidence:
    def test_only_plain_tensors_can_be(self):
        tensors = TensorDataset(torch.zeros(4, 2))
        assert can_be_resident(tensors, None, CPU)[0]
        assert can_be_resident(Arrays({"x": torch.zeros(4)}), None, CPU)[0]
        assert can_be_resident(Subset(tensors, [0, 2]), None, CPU)[0]
        assert not can_be_resident(tensors, lambda examples: examples, CPU)[0]
        possible, reason = can_be_resident(Computed(), None, CPU)
        assert not possible
        assert "random transform" in reason

    def test_a_subclass_may_compute(self):
        class Flipped(TensorDataset):
            def __getitem__(self, index):
                return tuple(tensor.flip(0) for tensor in super().__getitem__(index))

        assert rows_of(Flipped(torch.zeros(4, 2))) is None

    def test_a_subclass_of_arrays_may_compute_too(self):
        class Brighter(Arrays):
            def __getitem__(self, index):
                return super().__getitem__(index) + 1

        class Flipped(MemoryMapped):
            def __getitems__(self, indices):
                return [self[index].flip(0) for index in indices]

        data = Brighter(torch.arange(40))
        assert not can_be_resident(data, None, CPU)[0]
        assert torch.equal(run(data)[0], torch.from_numpy(ORDER.key(0).indices + 1))
        assert torch.equal(run(Subset(data, range(40)))[0], run(data)[0])
        assert rows_of(Flipped.__new__(Flipped)) is None
        assert rows_of(Arrays(torch.zeros(3))) is not None

    def test_a_subset_counts_from_the_end_as_lists_do(self):
        data = Subset(Subset(TensorDataset(torch.arange(5)), [4, 1, -2]), [-1, 0])
        assert torch.equal(rows_of(data).tensors()[0], torch.tensor([3, 4]))
        (batch, _) = Fetcher(data, None, 0)(Key(0, np.array([0, 1])))
        assert torch.equal(batch[0], torch.stack([data[0][0], data[1][0]]))

    def test_a_copy_needs_room(self, monkeypatch):
        tensors = TensorDataset(torch.zeros(4, 2))
        monkeypatch.setattr(Device, "free_bytes", lambda self: 16)
        assert can_be_resident(tensors, None, CPU)[0]  # it is there
        assert not can_be_resident(Subset(tensors, [0, 2]), None, CPU)[0]

    def test_a_subset_keeps_its_order(self):
        assert torch.equal(
            rows_of(Subset(TensorDataset(torch.arange(5)), [4, 1])).tensors()[0],
            torch.tensor([4, 1]),
        )

    def test_a_plan_that_asks_for_the_impossible_is_refused(self):
        with pytest.raises(PlanError, match="resident feed the data must be tensors"):
            run(Computed(), feed="resident")


def test_an_error_in_a_worker_is_one_message():
    class Ragged(Computed):
        def __getitem__(self, index):
            return torch.zeros(index + 1)

    with pytest.raises(
        DataError,
        match=r"\A(?!.*Traceback)The examples of a batch must have the same structure and shapes",
    ):
        run(Ragged(), workers=1)


def test_a_copy_on_its_way_is_waited_for_when_the_feed_is_closed_early(monkeypatch):
    waited = []

    class Copied:
        def __init__(self, number):
            self.number = number

        def synchronize(self):
            waited.append(self.number)

    class Recorded:
        def __init__(self, device):
            self.count = 0

        def start(self, batch):
            self.count += 1
            return batch, Copied(self.count)

        def finish(self, pending):
            return pending[0]

    monkeypatch.setattr("volano.data.feed.feed.Transfer", Recorded)
    device = Device("cpu")
    device.is_cpu = False
    data = torch.utils.data.TensorDataset(torch.arange(64.0))
    feed = RingFeed(Fetcher(data, None, 0), device, Quarantine(64))
    order = Order(num_examples=64, batch_size=8, seed=0)
    with contextlib.closing(feed.batches(order.keys(0, 8))) as batches:
        next(batches)
        next(batches)
    assert waited == [3]
