"""The knob at fault is found by taking knobs away."""

import functools

import pytest

from planner import faults
from volano import Plan
from volano.planner.parity.bisect_knobs import SUSPECTS, find_fault
from volano.planner.parity.check import Parity, check_parity
from volano.planner.parity.reference import Reference

BASELINE = Plan.baseline()
MANY = BASELINE.pin(
    precision="bf16",
    memory_format="channels_last",
    optimizer="fused",
    micro_batch=16,
    recompute="blocks",
)


@pytest.fixture
def verdicts(make_task, monkeypatch):
    """``verdicts(fails)``: the guard as a function of the plan, and the plans that it was asked
    about."""

    def install(fails):
        asked = []

        def check(_task, plan, *, reference):
            asked.append(plan)
            return Parity(passed=not fails(plan), reason="")

        monkeypatch.setattr("volano.planner.parity.bisect_knobs.check_parity", check)
        return asked

    return install


def fault(make_task, plan, **options):
    task = make_task()
    return find_fault(task, plan, Reference(task), **options)


@pytest.mark.parametrize(
    "knob", ["precision", "memory_format", "optimizer", "micro_batch", "recompute"]
)
def test_one_knob(make_task, verdicts, knob):
    asked = verdicts(lambda plan: getattr(plan, knob) != getattr(BASELINE, knob))
    assert fault(make_task, MANY) == (knob,)
    assert len(asked) == len(set(asked)) <= 12


def test_two_knobs_that_fail_together_only(make_task, verdicts):
    verdicts(lambda plan: plan.precision == "bf16" and plan.memory_format == "channels_last")
    assert fault(make_task, MANY) == ("precision", "memory_format")


def test_two_knobs_that_fail_each_alone(make_task, verdicts):
    verdicts(lambda plan: plan.precision == "bf16" or plan.optimizer == "fused")
    assert fault(make_task, MANY, most=20) == ("precision", "optimizer")


def test_eager_that_does_not_pass_blames_nothing(make_task, verdicts):
    asked = verdicts(lambda plan: True)
    assert fault(make_task, MANY) == ()
    assert asked == [BASELINE]


def test_a_plan_that_passes_blames_nothing(make_task, verdicts):
    verdicts(lambda plan: False)
    assert fault(make_task, MANY) == ()
    assert fault(make_task, BASELINE) == ()


def test_the_checks_are_bounded(make_task, verdicts):
    asked = verdicts(lambda plan: plan.changes(BASELINE).keys() & set(SUSPECTS) != set())
    assert fault(make_task, MANY, most=6) == (
        "recompute",
        "precision",
        "memory_format",
        "optimizer",
        "micro_batch",
    )
    assert len(asked) == 6


def test_a_real_fault(make_task):
    task = make_task(model=functools.partial(faults.WrongGradient, faults.in_bf16))
    reference = Reference(task)
    plan = BASELINE.pin(
        precision="bf16", memory_format="channels_last", optimizer="fused", micro_batch=16
    )
    assert not check_parity(task, plan, reference=reference).passed
    assert find_fault(task, plan, reference) == ("precision",)


@pytest.mark.slow  # compiles a program for each set of knobs that it looks at
@pytest.mark.compiles
# Torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_fault_of_two_knobs(make_task):
    task = make_task(model=functools.partial(faults.WrongGradient, faults.compiled_in_bf16))
    plan = BASELINE.pin(precision="bf16", compile=True, optimizer="fused")
    assert find_fault(task, plan, Reference(task)) == ("compile", "precision")
