"""What an engine has if it leaves it as it is."""

import pytest

from volano.packing.engines.engine import Engine


class Plain(Engine):
    """The least that an engine is."""

    name = "plain"

    def __init__(self, solos):
        self.solos = solos

    def step(self, batch):
        return batch

    def evaluate(self, data, feed):
        return [{"loss": data}, {"feed": feed}]

    def states(self, slots):
        return [{} for _ in slots]

    def keep(self, slots):
        self.solos = [self.solos[slot] for slot in slots]


def test_evaluations_of_all_are_those_of_each():
    assert Plain([]).evaluate_together(1, 2) == [{"loss": 1}, {"feed": 2}]


def test_members_in_their_own_objects_are_the_members():
    engine = Plain(["a", "b", "c"])
    assert engine.settled() is engine.solos
    engine.keep([2, 0])
    assert engine.settled() == ["c", "a"]


def test_an_engine_that_leaves_out_what_it_must_do_is_not_made():
    class Half(Plain):
        keep = Engine.keep

    with pytest.raises(TypeError, match="keep"):
        Half([])
