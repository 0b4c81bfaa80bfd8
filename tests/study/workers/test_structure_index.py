"""Tasks of one structure have one number, over the whole of a study."""

import functools

import torch
from torch import nn

from study.standin import task
from volano.study.workers.structure_index import BuiltTask, StructureIndex


def built(width, lr=0.1):
    return BuiltTask.of(
        task(model=lambda: nn.Linear(width, 1), optimizer=functools.partial(torch.optim.SGD, lr=lr))
    )


def test_structures_are_numbered_as_they_are_met():
    index = StructureIndex()
    assert index.of([built(2), built(3), built(2, lr=0.5)]) == [0, 1, 0]
    assert index.of([built(4), built(3)]) == [2, 1]
    assert index.first(1).model.in_features == 3
    assert len({index.name(kind) for kind in range(3)}) == 3


def test_a_name_is_the_same_in_another_process():
    here, there = StructureIndex(), StructureIndex()
    here.of([built(2), built(3)])
    there.of([built(3)])
    assert there.name(0) == here.name(1)


def test_what_stands_apart_says_in_what():
    index = StructureIndex()
    index.of([built(2), built(3)])
    assert index.reasons(0)
    assert "2" in index.reasons(0)[0]
