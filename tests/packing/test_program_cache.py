"""What packs of one structure share."""

import dataclasses

import pytest
import torch

from packing.structures import CONFIGS, STRUCTURES
from volano import Plan
from volano.device import Device
from volano.packing.member import Member, MemberState
from volano.packing.program_cache import ProgramCache
from volano.packing.structure.grouping import groups_of

MLP = STRUCTURES["mlp"]


def member(config, **fields):
    return MemberState(
        Member(number=0, task=MLP.task(config, dtype=torch.float32, **fields)),
        Plan.baseline("cpu"),
        Device("cpu"),
    )


@pytest.fixture
def family():
    solos = [member(config) for config in CONFIGS[:2]]
    (group,) = groups_of(
        [s.task for s in solos], [s.model for s in solos], [s.optimizer for s in solos]
    )
    return ProgramCache(solos[0], group, Device("cpu"), "fp32")


def test_a_member_of_a_family_is_known_by_its_numbers(family):
    found = family.numbers(member(CONFIGS[3]))
    assert sorted(found.values()) == sorted([CONFIGS[3].drop, CONFIGS[3].smoothing])
    # One that is as the first in a number has the first's.
    like_first = dataclasses.replace(CONFIGS[3], drop=CONFIGS[0].drop)
    assert sorted(family.numbers(member(like_first)).values()) == sorted(
        [CONFIGS[0].drop, CONFIGS[3].smoothing]
    )


def test_who_is_no_member_has_no_numbers(family):
    assert family.numbers(member(CONFIGS[0], batch_size=4)) is None
    (group,) = groups_of([family._first.task], [family._first.model])
    narrow = ProgramCache(family._first, group, Device("cpu"), "fp32")  # in which nothing varies
    assert narrow.numbers(member(CONFIGS[1])) is None


def test_programs_are_made_once_and_compiled_for_the_first_shapes_only(family):
    made = []
    for key in (("a",), ("b",), ("a",)):
        family.program(key, lambda key=key: made.append(key))
    assert made == [("a",), ("b",)]
    assert [family.is_worth_compiling((size,)) for size in (8, 6, 5, 8)] == [
        True,
        True,
        False,
        True,
    ]


def test_a_family_says_something_once(family):
    heard = []
    for text in ("first", "second"):
        family.tell_once(heard.append, text)
    assert heard == ["first"]
