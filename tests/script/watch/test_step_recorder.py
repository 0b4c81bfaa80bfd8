"""The clock of a loop, driven by hand."""

from __future__ import annotations

import pytest

from volano.script.watch.step_recorder import ObservationLimits, StepRecorder


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Loop:
    """A recorder whose parts last as long as is said."""

    def __init__(self, **limits):
        self.clock = Clock()
        limits = {"warmup_steps": 1, "steps": 3, "seconds": 1e9, "end_seconds": 1e9} | limits
        self.recorder = StepRecorder(ObservationLimits(**limits), self.clock)

    def part(self, name, seconds, line=1, inside=()):
        if self.recorder.takes(name):
            self.recorder.enter(name, ("train.py", line, line))
            self.clock.now += seconds
            for other in inside:
                self.part(*other)
            self.recorder.leave()
        else:
            self.clock.now += seconds

    def step(self, optimizer=0):
        self.part("data", 2, 10)
        self.part("forward", 3, 11, inside=[("read", 1, 50)])
        self.part("backward", 4, 12)
        self.part("optimizer", 1, 13)
        self.recorder.end_step(optimizer)
        self.clock.now += 0.5
        self.part("read", 0.5, 14)

    def found(self):
        record = self.recorder.to_json()
        return record, {(p["part"], p["line"]): p["seconds"] for p in record["parts"]}


def test_every_second_is_charged_once_and_a_nested_read_is_not_a_forward_pass():
    loop = Loop()
    for _ in range(4):
        loop.step()
    record, parts = loop.found()
    assert loop.recorder.is_complete
    assert parts == {
        ("data", 10): 2,
        ("forward", 11): 3,
        ("read", 50): 1,
        ("backward", 12): 4,
        ("optimizer", 13): 1,
        ("read", 14): 0.5,
        ("rest", 13): 0.5,
    }
    assert record["num_steps"] == 3
    assert record["step_seconds"] == sum(parts.values()) == 12


def test_validation_is_no_part_of_a_step():
    loop = Loop()
    for _ in range(2):
        loop.step()
    for _ in range(3):
        loop.part("data", 7, 20)
        loop.part("evaluation", 5, 21)
        loop.part("read", 1, 22)
    for _ in range(2):
        loop.step()
    record, parts = loop.found()
    assert record["evaluation_seconds"] == 39
    assert record["step_seconds"] == 12
    assert ("data", 20) not in parts


def test_a_forward_pass_without_backward_is_evaluation_with_gradients_too():
    loop = Loop()
    for _ in range(2):
        loop.step()
    loop.part("data", 7, 20)
    loop.part("forward", 5, 21)
    loop.step()
    loop.step()
    assert loop.found()[0]["evaluation_seconds"] == 12


def test_micro_batches_make_one_step():
    loop = Loop(steps=2)
    for _ in range(3):
        for _ in range(2):
            loop.part("data", 1, 10)
            loop.part("forward", 1, 11)
            loop.part("backward", 1, 12)
        loop.part("optimizer", 1, 13)
        loop.recorder.end_step(0)
    record, parts = loop.found()
    assert record["step_seconds"] == 7
    assert parts[("data", 10)] == 2


def test_two_optimizers_make_one_step_and_the_second_takes_over_when_the_first_rests():
    loop = Loop(steps=100)
    for _ in range(5):
        loop.part("optimizer", 1, 1)
        loop.recorder.end_step(1)
        loop.part("optimizer", 1, 2)
        loop.recorder.end_step(2)
    assert loop.recorder.num_steps == 5
    assert loop.recorder.num_optimizers == 2
    for _ in range(20):
        loop.recorder.end_step(2)
    assert loop.recorder.num_steps > 15


def test_what_a_closure_computes_is_told_apart_from_the_optimizer():
    loop = Loop()
    for _ in range(4):
        inside = [("forward", 2, 3), ("backward", 3, 4)]
        loop.part("optimizer", 1, 1, inside=inside)
        loop.recorder.end_step(0)
    assert loop.found()[1] == {("optimizer", 1): 1, ("forward", 3): 2, ("backward", 4): 3}


@pytest.mark.parametrize(("part", "is_told"), [("forward", False), ("transfer", True)])
def test_what_a_dataset_computes_belongs_to_the_waiting_for_data(part, is_told):
    loop = Loop()
    loop.recorder.enter("data", None)
    assert loop.recorder.takes(part) == is_told


def test_a_copy_is_charged_after_it_was_made():
    loop = Loop(warmup_steps=0, steps=1)
    loop.recorder.end_step(0)
    started = loop.recorder.now()
    loop.clock.now += 2
    loop.recorder.span("transfer", started, ("train.py", 5, 5))
    loop.recorder.end_step(0)
    assert loop.found()[1][("transfer", 5)] == 2


def test_the_parts_on_a_device_are_told_apart_after_its_steps_were_timed():
    loop = Loop(steps=2)
    waits = []
    loop.recorder.can_synchronize = lambda: waits.append(loop.recorder.num_steps)
    for _ in range(6):
        loop.part("forward", 1)
        loop.recorder.end_step(0)
    assert loop.recorder.is_complete
    assert loop.recorder.to_json()["free_step_seconds"] == 1
    assert waits == [3, 4]


def test_the_end_comes_at_the_next_step_when_the_time_is_over():
    loop = Loop(steps=100, end_seconds=30)
    for _ in range(10):
        if not loop.recorder.is_complete:
            loop.step()
    assert loop.recorder.num_steps == 3


def test_how_busy_the_cores_were_is_known_of_a_script_that_ends_early():
    loop = Loop(steps=9)
    loop.step()
    loop.step()
    record, _ = loop.found()
    assert not loop.recorder.is_complete
    assert record["busy_cores"] >= record["kernel_cores"] >= 0.0
