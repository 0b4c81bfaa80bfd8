"""Members that augment alike share a recording of it, if it is the same at each call."""

import dataclasses

import torch

from packing.comparing import advanced, assert_same_bits, pack_of
from packing.structures import STRUCTURES
from training.graphs.recording_graph import recording  # noqa: F401 - a fixture


def noisy(batch, generator):
    images, classes = batch
    images.add_(torch.rand(images.shape, generator=generator, dtype=images.dtype), alpha=0.1)
    return images, classes


class Fading:
    """Augments less each time that it is called."""

    def __init__(self):
        self.strength = torch.ones(())

    def __call__(self, batch, generator):
        self.strength.mul_(0.5)
        return batch[0] * (1.0 + self.strength), batch[1]


def test_members_that_augment_alike_share_a_recording(recording):  # noqa: F811
    tasks = STRUCTURES["mlp"].tasks(augment=noisy)
    eager = advanced(pack_of(tasks, graph=False), 6)
    pack = advanced(pack_of(tasks), 6)
    # The first member's first batch is augmented eagerly, and the first step is eager.
    assert (recording.num_recorded, recording.num_replays) == (2, 4 * 6 - 1 + 5)
    assert_same_bits(pack, eager)


def test_an_augmentation_that_changes_is_not_recorded(recording):  # noqa: F811
    tasks = STRUCTURES["mlp"].tasks()
    packs = [
        advanced(pack_of([dataclasses.replace(t, augment=Fading()) for t in tasks], graph=graph), 6)
        for graph in (False, None)
    ]
    assert recording.num_recorded == 1  # the step
    assert "augment.strength may change with each call" in packs[1].refused["augmentation"]
    assert_same_bits(*reversed(packs))
