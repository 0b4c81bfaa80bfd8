"""Blocks in turn, by a clock that only the sides move."""

import contextlib
from types import SimpleNamespace

import pytest

from volano.benchmark.rounds import StepGain, take_turns


class Machine:
    """A clock, and sides whose steps take so many seconds."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def clock(self):
        return self.now

    def side(self, name, seconds):
        def make(count):
            self.calls.append((name, count))
            self.now += seconds * count

        return SimpleNamespace(settled=contextlib.nullcontext, make=make)


def test_sides_take_turns_in_blocks_of_a_second():
    machine = Machine()
    sides = {"slow": machine.side("slow", 0.5), "fast": machine.side("fast", 0.1)}
    found = take_turns(sides, deadline=10.0, clock=machine.clock)
    assert found["slow"] == pytest.approx([0.5] * len(found["slow"]))
    assert found["fast"] == pytest.approx([0.1] * len(found["slow"]))
    # Each block begins with a step that is not counted.
    blocks = machine.calls[4:]
    assert blocks[:4] == [("slow", 1), ("slow", 2), ("fast", 1), ("fast", 10)]
    assert blocks[4:8] == [("fast", 1), ("fast", 10), ("slow", 1), ("slow", 2)]
    assert machine.now <= 10.0


def test_there_are_three_rounds_at_least_and_twelve_at_most():
    for deadline, expected in ((0.0, 3), (1e9, 12)):
        machine = Machine()
        found = take_turns({"a": machine.side("a", 2.0)}, deadline=deadline, clock=machine.clock)
        assert len(found["a"]) == expected


def test_a_gain_is_taken_round_by_round():
    # The machine is twice as slow in the second round, for both.
    gain = StepGain.of([2.0, 4.0, 2.4], [1.0, 2.0, 1.0])
    assert (gain.median, gain.least, gain.most) == pytest.approx((2.0, 2.0, 2.4))


def test_what_the_side_before_has_left_is_not_counted():
    """A first step after another side, which has given the memory back, takes longer."""
    machine = Machine()

    def make_side():
        def make(count):
            first = 5.0 if side.is_cold else 0.0
            side.is_cold = False
            machine.now += first + 0.1 * count

        @contextlib.contextmanager
        def settled():
            side.is_cold = True
            yield

        side = SimpleNamespace(settled=settled, make=make, is_cold=True)
        return side

    found = take_turns({"a": make_side(), "b": make_side()}, deadline=0.0, clock=machine.clock)
    assert found["a"] + found["b"] == pytest.approx([0.1] * 6)
