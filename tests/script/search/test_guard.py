"""Planted faults are struck, sound plans are not. Loops run in this process, under hooks."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from script.loops import LOOPS, closures, two_optimizers
from volano.script.apply import applied
from volano.script.plan import ScriptPlan
from volano.script.search.guard import FirstResults, ScriptGuard
from volano.script.watch.call_sites import CallSites
from volano.script.watch.float64 import computed_in_float64
from volano.script.watch.hooks import TorchHooks
from volano.script.watch.step_recorder import ObservationLimits, StepRecorder

WORKER = ScriptPlan(num_workers=1)
LAST = ScriptPlan(memory_format="channels_last")
BF16 = ScriptPlan(precision="bf16")
COMPILED = ScriptPlan(compile="default")


class Pictures(Dataset):
    """Examples that are what they are; subclasses are not."""

    def __len__(self):
        return 80  # ten batches: fewer than eight are worth no workers

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.randn(3, 8, 8, generator=generator), index % 4


class DrawnPictures(Pictures):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image + torch.randn(()), label


class CountedPictures(Pictures):
    """Harder with each example that was read, by one process."""

    def __init__(self):
        self.reads = itertools.count()

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image * (1 + 0.01 * next(self.reads)), label


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3), nn.Linear(288, 4)

    def forward(self, images):
        return self.head(self.between(self.convolution(images).relu()).flatten(1))

    def between(self, x):
        return x


class ReadsMemory(Net):
    def between(self, x):
        return x.as_strided(x.shape, torch.empty(x.shape).stride())


class Cancels(Net):
    def forward(self, images):
        return super().forward(images) + 4096 - 4096


class DiffersCompiled(Net):
    def between(self, x):
        return x * 1.01 if torch.compiler.is_compiling() else x


class OverflowsCompiled(Net):
    def between(self, x):
        return x * 1e30 * 1e30 if torch.compiler.is_compiling() else x


def computed(folder, plan, net=Net, data=Pictures, optimizer=torch.optim.AdamW, threads=1):
    def loop():
        torch.manual_seed(0)
        model = net()
        steps = optimizer(model.parameters(), lr=1e-3)
        for images, labels in DataLoader(data(), batch_size=8):
            loss = nn.functional.cross_entropy(model(images), labels)
            steps.zero_grad()
            loss.backward()
            steps.step()

    return computed_by(loop, folder, plan, threads)


def computed_by(loop, folder, plan, threads=1):
    torch.set_num_threads(threads)
    recorder = StepRecorder(ObservationLimits(steps=1000))
    hooks = TorchHooks(recorder, CallSites([folder]), lambda: None)
    with applied(plan), hooks.installed():
        loop()
    torch.set_num_threads(1)
    path, first = folder / "first.safetensors", hooks.first_steps
    first.save(path)
    return FirstResults.of(first.losses(), path, first.draws)


def judged(folder, plan, **kinds):
    guard = ScriptGuard(*(computed(folder, ScriptPlan(), **kinds, threads=n) for n in (1, 1, 2)))
    return guard.check(plan, computed(folder, plan, **kinds))


@pytest.fixture(autouse=True)
def compiled_without_a_compiler(monkeypatch):
    eager = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", lambda module, mode: eager(module))
    # This processor may have no units for it; the numbers are the same.
    monkeypatch.setattr("volano.device.Device.check_precision", lambda *_: None)


@pytest.mark.parametrize("plan", [WORKER, LAST, BF16, COMPILED, ScriptPlan(fused=True)])
def test_what_is_sound_passes(plan, tmp_path):
    passed, reason = judged(tmp_path, plan)
    assert passed, reason
    if plan.semantics() == "exact":
        assert reason == "equal to the last bit"


@pytest.mark.parametrize(
    ("plan", "kinds", "said"),
    [
        (WORKER, {"data": DrawnPictures}, "other numbers: the loss of step 1"),
        (WORKER, {"data": CountedPictures}, None),
        (LAST, {"net": ReadsMemory}, "the first gradient is off by"),
        (BF16, {"net": Cancels}, "the first gradient is off by"),
        (COMPILED, {"net": DiffersCompiled}, "the first gradient is off by"),
        (COMPILED, {"net": OverflowsCompiled}, "a loss is (nan|inf) in step 1"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_computes_something_else_is_struck(plan, kinds, said, tmp_path):
    if said is None:  # one worker reads in the same order: its count is the same
        assert judged(tmp_path, plan, **kinds).passed
        plan, said = ScriptPlan(num_workers=2), "other numbers: the loss of step 2"
    passed, reason = judged(tmp_path, plan, **kinds)
    assert not passed
    assert re.search(said, reason), reason


def altered(run, **values):
    return dataclasses.replace(run, values={**run.values, **values})


def test_an_optimizer_that_updates_otherwise_is_struck(tmp_path):
    run = computed(tmp_path, ScriptPlan())
    other = altered(run, **{"update.0.0": -run.values["update.0.0"]})
    passed, reason = ScriptGuard(run, run, run).check(ScriptPlan(fused=True), other)
    assert not passed
    assert reason.startswith("the first update points elsewhere: cosine")


def test_losses_that_leave_the_scripts_are_struck(tmp_path):
    run = computed(tmp_path, ScriptPlan())
    losses = (*run.losses[:2], 1.5 * run.losses[2])
    guard = ScriptGuard(run, run, run)
    passed, reason = guard.check(LAST, FirstResults(losses, run.values))
    assert not passed
    assert reason.startswith("the loss of step 3 is")


def test_a_script_whose_own_runs_differ_is_compared_with_nothing(tmp_path):
    run = computed(tmp_path, ScriptPlan())
    other = altered(run, **{"gradient.0.0": 2 * run.values["gradient.0.0"]})
    guard = ScriptGuard(run, other, run)
    assert guard.why_not is not None
    assert not guard.check(ScriptPlan(threads=1), run).passed


def test_a_script_that_is_not_reproducible_to_the_bit_is_held_to_rounding(tmp_path):
    run = computed(tmp_path, ScriptPlan())
    close = altered(run, **{"gradient.0.0": run.values["gradient.0.0"] * (1 + 1e-7)})
    guard = ScriptGuard(run, close, run)
    assert not guard.is_reproducible
    assert guard.check(WORKER, altered(close)).passed


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_loops_of_every_kind_pass_under_sound_plans(loop, tmp_path):
    base, rounded = (computed_by(loop, tmp_path, ScriptPlan(), threads) for threads in (1, 2))
    guard = ScriptGuard(base, base, rounded)
    last = ScriptPlan(memory_format="channels_last", fused=True)
    if loop is closures:  # LBFGS cannot flatten such gradients: the plan fails, and is left
        last = ScriptPlan(fused=True)
    for plan in (last, BF16):
        passed, reason = guard.check(plan, computed_by(loop, tmp_path, plan))
        assert passed, reason


def test_a_second_optimizers_gradient_counts_too(tmp_path):
    run = computed_by(two_optimizers, tmp_path, ScriptPlan())
    name = next(name for name in run.values if name.startswith("gradient.1."))
    other = altered(run, **{name: 3 * run.values[name]})
    passed, reason = ScriptGuard(run, run, run).check(LAST, other)
    assert not passed
    assert reason.startswith("the second optimizer's first gradient is off by")


class RoundsCoarsely(Net):
    """Rounds to multiples of 2^-8: fp32 itself is off by far more than another order of sums."""

    def between(self, x):
        return x + 2.0**15 - 2.0**15


def test_what_float64_explains_is_not_struck_and_a_fault_still_is(tmp_path):
    base = computed(tmp_path, ScriptPlan(), net=RoundsCoarsely)
    with computed_in_float64():
        reference = computed(tmp_path, ScriptPlan(), net=RoundsCoarsely)
    guard = ScriptGuard(base, base, base)  # no other order of sums has shown anything
    name = "gradient.0.0"
    gradient, exact = base.values[name], reference.values[name]
    other = altered(base, **{name: 2 * exact - gradient})  # as far off, to the other side
    assert not guard.check(LAST, other).passed
    assert guard.refer_to(reference)
    passed, reason = guard.check(LAST, other)
    assert passed, reason
    assert not guard.check(LAST, altered(base, **{name: 1.1 * gradient})).passed


@pytest.mark.parametrize(("net", "is_same"), [(Net, True), (ReadsMemory, False)])
def test_what_computes_the_same_in_float64_may_round_more(net, is_same, tmp_path):
    base = computed(tmp_path, ScriptPlan(), net=net)
    with computed_in_float64():
        reference = computed(tmp_path, ScriptPlan(), net=net)
        other = computed(tmp_path, LAST, net=net)
    guard = ScriptGuard(base, base, base)
    assert guard.refer_to(reference)
    assert guard.is_same_in_float64(other) == is_same
    assert not guard.is_same_in_float64(dataclasses.replace(reference, draws="other"))
    name = "gradient.0.0"
    careless = altered(base, **{name: 1.005 * base.values[name]})
    assert not guard.check(LAST, careless).passed
    passed, reason = guard.check(LAST, careless, is_same_in_float64=True)
    assert passed, reason
    wrong = altered(base, **{name: 1.1 * base.values[name]})
    assert not guard.check(LAST, wrong, is_same_in_float64=True).passed


def test_what_draws_otherwise_in_float64_is_no_reference(tmp_path):
    run = computed(tmp_path, ScriptPlan())
    guard = ScriptGuard(run, run, run)
    assert run.draws
    assert not guard.refer_to(dataclasses.replace(run, draws="other"))
    far = altered(run, **{"gradient.0.0": 2 * run.values["gradient.0.0"]})
    assert not guard.refer_to(far)
