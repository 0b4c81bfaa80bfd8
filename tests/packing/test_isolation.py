"""What a member's own code does to what it is given reaches no other member."""

import pytest
import torch
import torch.nn.functional as F

from packing.comparing import alone, deviation, packed
from packing.structures import Structure, plain_mlp, sgd
from volano.packing import Member, Pack

_MOST_IN_FLOAT64 = 1e-10
ENGINES = ["loop", "lowered"]
MLP = Structure(model=plain_mlp, optimizer=sgd)


def mirrored(batch, generator):
    """Turns some of the images around, in the batch itself."""
    images, classes = batch
    some = torch.rand(len(images), generator=generator) < 0.5
    images[some] = images[some].flip(-1)
    return images, classes


def brightening(model, batch):
    """Works on the batch itself."""
    images, classes = batch
    images.mul_(1.5).add_(0.1)
    return F.cross_entropy(model(images), classes)


WAYS = {"augment": mirrored, "objective": brightening}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_that_is_changed_in_place_is_the_members_own(way, engine):
    tasks = MLP.tasks(**{way: WAYS[way]})
    for task, mine in zip(tasks, packed(tasks, 10, engine), strict=True):
        assert deviation(mine, alone(task, 10)) <= _MOST_IN_FLOAT64


@pytest.mark.parametrize("way", WAYS)
def test_engines_are_tried_on_batches_that_no_other_has_changed(way, slow_loop):
    tasks = MLP.tasks(**{way: WAYS[way]})
    pack = Pack(
        [Member(number=n, task=task) for n, task in enumerate(tasks)],
        device="cpu",
        num_steps=10_000,
    )
    assert pack.engine == "lowered", pack.choice
