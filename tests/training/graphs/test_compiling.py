"""Compiled code is not used under settings under which it was not compiled; repeated blocks share
theirs."""

import contextlib
import functools

import pytest
import torch
from torch import nn

from volano import Plan
from volano.device import Device
from volano.device.torch_private import dynamo_settings
from volano.training import Session, measure_step_time, run_trial
from volano.training.graphs import compiling
from volano.training.graphs.compiling import (
    CompiledBlocks,
    CompiledFunction,
    compiled_objective,
    num_repeats,
    repeated_blocks,
    settings_of,
)

pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def noisy(model, batch):
    """Draws by itself: which numbers is the setting's."""
    return (model(batch) + torch.randn_like(batch)).square().mean()


def test_settings_that_are_not_guarded_have_code_of_their_own():
    from torch._dynamo.utils import counters
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    torch.manual_seed(0)
    model, batch = nn.Linear(16, 16), torch.randn(4, 16)

    def loss_of(objective):
        torch.manual_seed(1)
        return objective(model, batch).item()

    def num_compiled(objective):
        before = counters["stats"]["unique_graphs"]
        loss_of(objective)
        return counters["stats"]["unique_graphs"] - before

    expected = loss_of(noisy)
    other = loss_of(CompiledFunction(noisy))
    assert other != pytest.approx(expected, rel=1e-3)  # the compiler's own numbers
    with inductor.patch(fallback_random=True):
        assert loss_of(CompiledFunction(noisy)) == pytest.approx(expected, rel=1e-5)
    compiled = CompiledFunction(noisy)
    with inductor.patch(fallback_random=True):
        assert loss_of(compiled) == pytest.approx(expected, rel=1e-5)
    assert loss_of(compiled) == other
    with functorch.patch(activation_memory_budget=0.5):
        assert num_compiled(compiled) == 1
        assert num_compiled(CompiledFunction(noisy)) == 0  # the same settings share
    assert num_compiled(CompiledFunction(noisy)) == 0


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.linear, self.last = nn.Linear(8, width), nn.Linear(width, 8)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return x + self.drop(self.last(self.linear(x).relu()))


def deep(num_blocks=3):
    return nn.Sequential(*[Block() for _ in range(num_blocks)], nn.Linear(8, 2))


none = contextlib.nullcontext


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that would be compiled; they run as they are."""
    found = []

    def keep(graph, _inputs, settings):
        found.append(settings)
        return graph

    monkeypatch.setattr(compiling, "compile_with_inductor", keep)
    compiling._backend.cache_clear()
    torch._dynamo.reset()
    yield found
    compiling._backend.cache_clear()


# Dynamo hides it, but not from filters that make errors of warnings.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
class TestBlocks:
    def test_those_of_one_class_repeat(self):
        model = deep()
        assert repeated_blocks(model) == list(model[:3])
        assert num_repeats(model) == 3
        assert num_repeats(nn.Sequential(Block(), Block(4), Block(4), Block())) == 2
        grouped = nn.Sequential(nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8)))
        assert repeated_blocks(grouped) == []
        assert num_repeats(nn.Linear(8, 2)) == 0

    def test_their_code_is_compiled_once(self, graphs):
        model, batch = deep().eval(), torch.randn(4, 8, requires_grad=True)
        expected = model(batch)
        with CompiledBlocks(model).applied(functools.partial(dynamo_settings().patch, {})):
            found = model(batch)
            assert all("forward" in block.__dict__ for block in model[:3])
        assert torch.equal(found, expected)
        assert len(graphs) == 1
        assert not any("forward" in block.__dict__ for block in model[:3])

    @pytest.mark.parametrize("recompute", ["none", "blocks"])
    def test_a_step_is_that_of_eager(self, make_task, graphs, recompute):
        task = make_task(
            model=lambda: nn.Sequential(
                nn.Linear(64, 8), *[Block() for _ in range(3)], nn.Linear(8, 10)
            )
        )
        batch = (torch.randn(32, 64), torch.arange(32) % 10)
        found = []
        notices: list[str] = []
        for knobs in ({}, {"compile": True, "compile_mode": "blocks"}):
            plan = Plan(recompute=recompute).pin(**knobs)
            session = Session(task, plan, on_notice=notices.append)
            session.step_once(batch, 0)
            found.append(torch.cat([p.detach().flatten() for p in session.model.parameters()]))
        assert torch.equal(*found)
        assert len(graphs) == 1
        assert notices == []

    def test_more_kinds_of_blocks_than_torch_keeps_code_for_are_compiled(self, graphs):
        model = nn.Sequential(*[Block(2 + width) for width in range(10)])
        plan = Plan(compile=True, compile_mode="blocks")
        with settings_of(plan, Device("cpu"), pytest.fail), CompiledBlocks(model).applied(none):
            model(torch.randn(4, 8))
        assert len(graphs) == 10

    def test_a_limit_that_is_hit_is_said_in_training_and_an_error_elsewhere(
        self, graphs, monkeypatch
    ):
        monkeypatch.setattr(compiling, "_MOST_VARIANTS", 2)
        model, batch = nn.Sequential(*[Block(2 + width) for width in range(4)]), torch.randn(4, 8)
        plan, told = Plan(compile=True, compile_mode="blocks"), []
        own = torch._dynamo.config.patch(recompile_limit=2)
        heard = settings_of(plan, Device("cpu"), told.append)
        with own, heard, CompiledBlocks(model).applied(none):
            model(batch)
        assert len(graphs) == 2
        (said,) = told
        assert "forward" in said
        assert "more than 2 variants" in said
        torch._dynamo.reset()
        with (
            torch._dynamo.config.patch(recompile_limit=2),
            settings_of(plan, Device("cpu")),
            CompiledBlocks(model).applied(none),
            pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit),
        ):
            model(batch)

    def test_a_whole_training_goes_on_uncompiled_and_says_so(self, graphs, monkeypatch, make_task):
        monkeypatch.setattr(compiling, "_MOST_VARIANTS", 2)

        def model():
            blocks = [Block(2 + width) for width in range(4)]
            return nn.Sequential(nn.Linear(64, 8), *blocks, nn.Linear(8, 10))

        task = make_task(model=model, duration="1st", valid=None)
        plan = Plan(compile=True, compile_mode="blocks")
        with torch._dynamo.config.patch(recompile_limit=2):
            trial = run_trial(task, plan)
            measure_step_time(task, plan, seconds=0.0, on_limit=lambda _: None)
        assert len(graphs) == 2
        (said,) = trial.notices
        assert "more than 2 variants" in said

    def test_what_has_no_effect_is_said(self, make_task):
        notices: list[str] = []
        for plan in (Plan(compile_mode="blocks"), Plan(compile=True, compile_mode="blocks")):
            Session(make_task(), plan, on_notice=notices.append)
        assert notices == [
            "compile_mode=blocks has no effect without compile",
            "nothing is compiled: no blocks repeat in Sequential",
        ]


def test_kernels_are_timed_in_the_mode_that_says_so(graphs):
    model, batch = nn.Linear(16, 16), torch.randn(4, 16)
    for mode in ("whole", "max-autotune"):
        plan = Plan(compile=True, compile_mode=mode)
        compiled_objective(noisy, plan)(model, batch)
    assert [settings.get("max_autotune", False) for settings in graphs] == [False, True]
    assert compiled_objective(noisy, Plan()) is noisy
