"""Members at the same place of the same order see one batch, and each its own where its code may
change it."""

import pytest
import torch

from packing.structures import CONFIGS, Structure, plain_mlp, sgd
from volano import Plan
from volano.device import Device
from volano.packing.pack_feed import FeedPlace, PackBatch, PackFeed, shape_of
from volano.packing.refusal import NotPackable

TASK = Structure(model=plain_mlp, optimizer=sgd).task(CONFIGS[0], dtype=torch.float32)


def batches(places, num_steps):
    return PackFeed(TASK, Plan.baseline("cpu"), Device("cpu"), lambda _: None).first_batches(
        places, num_steps
    )


def test_members_at_one_place_share_a_batch():
    first, second = batches([FeedPlace(1, 3), FeedPlace(2, 3), FeedPlace(1, 3)], 2)
    assert (len(first.distinct), first.of_member, first.is_shared) == (2, (0, 1, 0), False)
    assert first.of(0) is first.of(2)
    assert not torch.equal(first.of(0)[0], first.of(1)[0])
    # A place is a step of an order: the second batch from there is the first from the next.
    (later,) = batches([FeedPlace(1, 4)], 1)
    assert later.is_shared
    assert torch.equal(later.of(0)[0], second.of(0)[0])


def test_what_a_member_changes_in_its_own_batch_reaches_nobody():
    (batch,) = batches([FeedPlace(1, 0), FeedPlace(1, 0), FeedPlace(2, 0)], 1)
    before = batch.of(1)[0].clone()
    batch.own(0)[0].zero_()
    batch.copy().of(1)[0].zero_()
    assert torch.equal(batch.of(1)[0], before)
    assert batch.own(2) is batch.of(2)  # nobody else has it


def test_batches_are_stacked_in_the_members_order():
    one, other = (torch.zeros(2), {"y": torch.ones(3)}), (torch.ones(2), {"y": torch.zeros(3)})
    x, tree = PackBatch([one, other], (1, 0, 1)).stacked()
    assert x.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert tree["y"][:, 0].tolist() == [0, 1, 0]
    with pytest.raises(NotPackable, match="several shapes"):
        PackBatch([one, (torch.ones(3), {"y": torch.zeros(3)})], (0, 1)).stacked()


def test_a_shape_is_that_of_all_leaves_and_of_tensors_only():
    assert shape_of([torch.zeros(2), None]) == (((2,), torch.float32), None)
    assert shape_of({"x": torch.zeros(2)}) != shape_of({"y": torch.zeros(2)})
    with pytest.raises(NotPackable, match=r"a leaf that is no tensor \(str\)"):
        shape_of([torch.zeros(2), "word"])
