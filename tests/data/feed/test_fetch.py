"""A batch is fetched, its corrupt examples are put aside, and it is collated."""

import random

import numpy as np
import pytest
import torch

from data.feed.test_feed import ORDER, Computed, Corrupt, Noisy, run
from volano.data import Fetcher, Order, first_batches
from volano.errors import DataError
from volano.task import num_bytes


def test_random_transforms_change_with_the_epoch_and_leave_the_generators_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = (random.getstate(), torch.get_rng_state())
    batches = run(Noisy())
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    rows = torch.cat(batches)
    # No draw is repeated, over examples and over epochs.
    assert len(torch.unique(rows[:, 1])) == len(rows) == 80
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

    assert torch.equal(
        run(Computed(), collate=collate)[0], torch.tensor(ORDER.key(0).indices).float()
    )


def test_a_failing_collate_names_the_examples():
    def collate(examples):
        raise ValueError("no")

    with pytest.raises(DataError, match=rf"ValueError: no \(examples {ORDER.key(0).indices[0]}, "):
        run(Computed(), collate=collate)


def test_a_fetcher_falls_back_from_many_to_one():
    class Many(Corrupt):
        def __getitems__(self, indices):
            return [self[index] for index in indices]

    batch, faults = Fetcher(Many(), None, 9)(ORDER.key(0))
    expected, _ = Fetcher(Corrupt(), None, 9)(ORDER.key(0))
    assert torch.equal(batch, expected)
    assert {fault.index for fault in faults} <= Many.broken


def test_many_examples_are_as_many_as_were_asked_for():
    class Few(Computed):
        def __getitems__(self, indices):
            return [self[index] for index in indices[1:]]

    with pytest.raises(DataError, match="one example for each index; got 7 for 8 indices"):
        Fetcher(Few(), None, 9)(ORDER.key(0))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("8 GiB"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: 8 GiB"),
    ],
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


def padded(examples):
    """As long as the longest of them: an example's length is its first number."""
    length = 1 + int(max(pixels[0] for pixels, _ in examples))
    return torch.zeros(len(examples), length), torch.tensor([label for _, label in examples])


class Lengths:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.tensor([index % 23]), index


def test_the_first_batches_of_a_run_largest_first(make_task):
    task = make_task(data=Lengths(), valid=None, collate=padded, batch_size=4, duration="10st")
    batches = first_batches(task, seconds=60.0)
    sizes = [num_bytes(batch) for batch in batches]
    assert len(batches) == 4
    assert sizes == sorted(sizes, reverse=True)
    seen = {tuple(batch[1].tolist()) for batch in batches}
    assert seen == {tuple(Order.of(task).key(step).indices.tolist()) for step in range(4)}


def test_not_more_than_the_run_has_and_one_at_least(make_task):
    task = make_task(data=Lengths(), valid=None, collate=padded, batch_size=4, duration="2st")
    assert len(first_batches(task, seconds=60.0)) == 2
    assert len(first_batches(task, seconds=-1.0)) == 1
