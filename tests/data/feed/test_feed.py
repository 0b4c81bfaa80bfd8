"""Every feed gives bitwise the same batches, whatever makes them."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from volano.data import (
    Arrays,
    Fault,
    Fetcher,
    Key,
    MemoryMapped,
    Order,
    Quarantine,
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
        return torch.tensor([float(index), random.random(), np.random.rand(), torch.rand(()).item()])


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
    made = make_feed(data, collate, CPU, feed=feed, workers=workers, prefetch=2, seed=9, quarantine=quarantine)
    return list(made.batches(ORDER.keys(start, 10)))


def same(left, right):
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for a, b in zip(tensors_of(one), tensors_of(other), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize("data", [Computed(), Noisy(), Corrupt()], ids=["computed", "noisy", "corrupt"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_move_a_batch(data, workers):
    same(run(data), run(data, workers=workers))


@pytest.mark.parametrize("data", [Computed(), Noisy(), Corrupt()], ids=["computed", "noisy", "corrupt"])
def test_a_later_start_gives_the_same_rest(data):
    same(run(data)[4:], run(data, start=4))


def test_resident_and_ring_agree():
    tensors = TensorDataset(torch.arange(80, dtype=torch.uint8).view(40, 2), torch.arange(40))
    same(run(tensors, feed="resident"), run(tensors))
    same(run(tensors, feed="resident"), run(tensors, workers=1))
    batch = run(tensors)[0]
    assert batch[0].dtype == torch.uint8  # narrow types travel
    assert torch.equal(batch[1], torch.from_numpy(ORDER.key(0).indices.copy()))


def test_random_transforms_change_with_the_epoch_and_leave_the_generators_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = (random.getstate(), torch.get_rng_state())
    batches = run(Noisy())
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    rows = torch.cat(batches)
    assert len(torch.unique(rows[:, 1])) == len(rows) == 80  # no draw is repeated, over examples and over epochs
    assert len(torch.unique(rows[:, 3])) == 80


def test_examples_of_any_kind_are_collated():
    batch = run(Computed())[0]
    assert batch["x"].dtype == torch.uint8
    assert batch["x"].shape == (8, 3)
    assert batch["y"].dtype == torch.float64  # as torch's DataLoader makes of Python's floats
    assert batch["name"] == [f"n{index}" for index in ORDER.key(0).indices]


def test_a_collate_of_ones_own():
    def collate(examples):
        return torch.stack([torch.tensor(example["y"]) for example in examples]) * 2

    assert torch.equal(run(Computed(), collate=collate)[0], torch.tensor(ORDER.key(0).indices).float())


def test_a_failing_collate_names_the_examples():
    def collate(examples):
        raise ValueError("no")

    with pytest.raises(DataError, match=rf"ValueError: no \(examples {ORDER.key(0).indices[0]}, "):
        run(Computed(), collate=collate)


class TestQuarantine:
    def test_corrupt_examples_are_replaced_and_listed_once(self):
        told = []
        quarantine = Quarantine(40, told.append)
        batches = run(Corrupt(), quarantine=quarantine)
        assert all(len(batch) == 8 for batch in batches)
        assert not Corrupt.broken & set(torch.cat(batches).tolist())
        assert sorted(told, key=lambda fault: fault.index) == [
            Fault(3, "file3.png", "OSError: truncated"),
            Fault(17, "file17.png", "OSError: truncated"),
        ]

    def test_too_many_stop_the_run(self):
        class Rotten(Corrupt):
            broken = frozenset(range(0, 40, 4))

        with pytest.raises(DataError, match=r"At most 10% .* are corrupt; got 6 of .*file\d+.png: OSError: truncated"):
            run(Rotten())

    def test_nothing_but_corrupt_examples_ends_at_once(self):
        class Hopeless(Corrupt):
            broken = frozenset(range(40))

        with pytest.raises(DataError, match="20 in a row were corrupt; got example .* OSError: truncated"):
            run(Hopeless())


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
        assert torch.equal(rows_of(Subset(TensorDataset(torch.arange(5)), [4, 1])).tensors()[0], torch.tensor([4, 1]))

    def test_a_plan_that_asks_for_the_impossible_is_refused(self):
        with pytest.raises(PlanError, match="resident feed needs data in tensors"):
            run(Computed(), feed="resident")


def test_a_fetcher_falls_back_from_many_to_one():
    class Many(Corrupt):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    batch, faults = Fetcher(Many(), None, 9)(ORDER.key(0))
    expected, _ = Fetcher(Corrupt(), None, 9)(ORDER.key(0))
    assert torch.equal(batch, expected)
    assert {fault.index for fault in faults} <= Many.broken


def test_arrays_are_of_one_length():
    from volano.errors import TaskError

    with pytest.raises(TaskError, match="same length"):
        Arrays((torch.zeros(3), torch.zeros(4)))
    assert Arrays(torch.zeros(3)).fingerprint() != Arrays(torch.ones(3)).fingerprint()


def test_an_error_in_a_worker_is_one_message():
    class Ragged(Computed):
        def __getitem__(self, index):
            return torch.zeros(index + 1)

    with pytest.raises(DataError, match=r"\A(?!.*Traceback)The examples of a batch can be collated"):
        run(Ragged(), workers=1)


def test_a_small_set_stops_at_a_tenth_too():
    class Rotten(Corrupt):
        broken = frozenset(range(5))

        def __len__(self):
            return 8

    quarantine = Quarantine(8)
    fetcher = Fetcher(Rotten(), None, 0)
    found = [fetcher(key)[1] for key in Order(num_examples=8, batch_size=4, seed=0).keys(0, 2)]
    with pytest.raises(DataError, match="At most 10%"):
        quarantine.add([fault for faults in found for fault in faults], 8)


def test_a_fingerprint_of_any_strides():
    images = torch.rand(4, 5, 5, 3).permute(0, 3, 1, 2)
    assert Arrays(images).fingerprint() == Arrays(images.contiguous()).fingerprint()


@pytest.mark.parametrize(
    "error", [MemoryError("8 GiB"), RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 8 GiB")]
)
@pytest.mark.parametrize("where", ["example", "collate"])
def test_memory_that_runs_out_is_no_corrupt_example(error, where):
    class Full(Computed):
        def __getitem__(self, index):
            if where == "example" and index == 3:
                raise error
            return super().__getitem__(index)

    def collate(examples):
        raise error

    with pytest.raises(type(error), match="8 GiB"):
        run(Full(), collate=collate if where == "collate" else None)
