"""An engine is taken where it brings members to where they come alone: neither a small rate hides
that it does not, nor does rounding make it seem so."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import volano
from packing.structures import STRUCTURES, Language, ManyHeads, Structure, plain_mlp
from volano.device import Device
from volano.packing import Member, Pack, choose_engine
from volano.packing.equality import MemberAlone
from volano.packing.optim.stacked_update import StackedUpdate
from volano.packing.pack_feed import FeedPlace, PackFeed
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.training import MuonAdamW


@pytest.fixture(autouse=True)
def eager_choice(monkeypatch):
    """Looks at every engine but the compiled ones, however small the work."""
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choose_engine, "_HOPELESS", 1e9)


def pack_of(tasks: list[volano.Task], precision: str = "fp32") -> Pack:
    members = [Member(number=number, task=task) for number, task in enumerate(tasks)]
    # So few that compiling does not pay.
    return Pack(members, device="cpu", precision=precision, num_steps=100)


class Divided:
    """A stacked update that gets a part of one gradient."""

    def __init__(self, update: StackedUpdate, name: str, by: float) -> None:
        self._update, self._name, self._by = update, name, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._update, name)

    def __call__(self, parameters: Any, gradients: dict[str, Tensor], *others: Any) -> Any:
        changed = {**gradients, self._name: gradients[self._name] / self._by}
        return self._update(parameters, changed, *others)


def divide_gradient(engine: Any, name: str, by: float) -> None:
    assert engine._update is not None
    engine._update = Divided(engine._update, name, by)


def wrong(engine: str) -> type[Any]:
    """The engine with a tenth of the gradient of one parameter."""

    class Wrong(choose_engine.ENGINES[engine]):
        def _hold(self, solos: Any) -> None:
            super()._hold(solos)
            divide_gradient(self, "1.weight", 10)

    return Wrong


WARMUP = volano.cosine(warmup=0.9)
SLOW = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.1),
    "SGD with momentum": functools.partial(torch.optim.SGD, lr=1e-6, momentum=0.9),
    "AdamW": functools.partial(torch.optim.AdamW, lr=1e-3),
}


@pytest.mark.parametrize("optimizer", SLOW)
def test_a_wrong_gradient_shows_while_the_weights_hardly_move(optimizer, monkeypatch):
    tasks = Structure(model=plain_mlp, optimizer=lambda _: SLOW[optimizer]).tasks(
        dtype=torch.float32, schedule=WARMUP, duration="1000st", clip_norm=None
    )
    right = pack_of(tasks).choice
    assert "lowered" in right.seconds
    monkeypatch.setitem(choose_engine.ENGINES, "lowered", wrong("lowered"))
    refused = pack_of(tasks).choice
    assert refused.engine == "loop"
    assert re.search(r"of member 0 is .* from where it is alone", refused.refused["lowered"])


@pytest.mark.parametrize("engine", ["compiled", "each"])
def test_what_is_compiled_is_held_against_the_same(engine, monkeypatch):
    class Wrong(wrong("lowered")):
        name = engine

    monkeypatch.setitem(choose_engine.ENGINES, engine, Wrong)
    monkeypatch.setattr(choose_engine, "_COMPILED_UNTIL", 1e9 if engine == "compiled" else 0.0)
    monkeypatch.setattr(choose_engine, "_COMPILE_SECONDS", 0.0)
    tasks = Structure(model=plain_mlp).tasks(
        dtype=torch.float32, schedule=WARMUP, duration="1000st"
    )
    assert "from where it is alone" in pack_of(tasks).choice.refused[engine]


def averages_that_stand_still(engine: Any) -> None:
    engine._average = None


def updates_without_decay(engine: Any) -> None:
    for solo in engine.solos:
        solo.optimizer.param_groups[0]["weight_decay"] = 0.0
    engine._update = StackedUpdate(engine.solos, engine._stack.parameters)


def small_gradients_halved(engine: Any) -> None:
    divide_gradient(engine, "faint", 2)


class Faint(nn.Module):
    """A parameter of which the outputs hardly depend."""

    def __init__(self, _: Any) -> None:
        super().__init__()
        self.inner, self.faint = nn.Linear(64, 10), nn.Parameter(torch.zeros(10))

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images.flatten(1)) + 1e-5 * self.faint


FAULTS = {
    "averages": (averages_that_stand_still, Structure(model=plain_mlp), r"ema\.\S+"),
    "decay": (updates_without_decay, Structure(model=plain_mlp), r"model\.\S+"),
    "small gradients": (
        small_gradients_halved,
        Structure(model=Faint),
        r"model\.faint|optimizer\.state\.0\.exp_avg",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_neither_losses_nor_the_largest_gradients_show(fault, monkeypatch):
    change, structure, place = FAULTS[fault]

    class Wrong(choose_engine.ENGINES["lowered"]):
        def _hold(self, solos: Any) -> None:
            super()._hold(solos)
            change(self)

    monkeypatch.setitem(choose_engine.ENGINES, "lowered", Wrong)
    tasks = structure.tasks(dtype=torch.float32, schedule=WARMUP, duration="1000st", clip_norm=None)
    assert re.match(
        rf"({place}) of member \d is .* from where it is alone",
        pack_of(tasks[1:]).choice.refused["lowered"],
    )


def muon(_: Any) -> Any:
    def optimizer(parameters: Any) -> MuonAdamW:
        matrices, vectors = [], []
        for parameter in parameters:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        return MuonAdamW([
            {"params": matrices, "algorithm": "muon", "lr": 0.02}, {"params": vectors,
            "algorithm": "adamw", "lr": 3e-3}
        ])  # fmt: skip

    return optimizer


def with_idle_biases(_: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10),
    )  # fmt: skip


def wide(_: Any) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10)
    )


ROUNDING = {
    "the bias of keys": Structure(model=lambda config: Language(config, ManyHeads), has_text=True),
    "biases before BatchNorm": Structure(model=with_idle_biases),
    "Muon": Structure(model=wide, optimizer=muon),
    "averages": STRUCTURES["mlp"],
}


@pytest.mark.parametrize(("precision", "rate"), [("fp32", 1e-4), ("fp32", 1.0), ("bf16", 1.0)])
@pytest.mark.parametrize("name", ROUNDING)
def test_what_moves_by_rounding_strikes_no_engine(name, precision, rate, monkeypatch):
    tasks = ROUNDING[name].tasks(dtype=torch.float32, schedule=lambda _: rate)
    assert "lowered" in pack_of(tasks, precision).choice.seconds


def test_the_state_of_a_member_has_the_same_parts(monkeypatch):
    class Forgetful(choose_engine.ENGINES["lowered"]):
        def states(self, slots: Any) -> Any:
            states = super().states(slots)
            for state in states:
                del state["optimizer"]["state"][0]["momentum_buffer"]
            return states

    monkeypatch.setitem(choose_engine.ENGINES, "lowered", Forgetful)
    tasks = STRUCTURES["mlp with SGD"].tasks(dtype=torch.float32)
    assert (
        "optimizer.state.0.momentum_buffer not as alone" in pack_of(tasks).choice.refused["lowered"]
    )


class Keeping(choose_engine.ENGINES["lowered"]):
    """Its program for evaluations keeps what the first batch gave."""

    def _program(self, key: Any, make: Any) -> Any:
        program = super()._program(key, make)
        if key[0] != "evaluation":
            return program
        kept = self.__dict__.setdefault("kept", [])

        def first(inputs: Any) -> Any:
            kept.append(program(inputs))
            return kept[0]

        return first


def test_an_evaluation_that_says_something_else_is_made_alone(monkeypatch, slow_loop):
    monkeypatch.setitem(choose_engine.ENGINES, "lowered", Keeping)
    tasks = STRUCTURES["mlp"].tasks(dtype=torch.float32)
    pack = pack_of(tasks)
    assert pack.engine == "lowered"  # the training keeps its pace
    assert re.match(r"(loss|accuracy) of member 0 is \S+ and alone", pack.refused["evaluation"])
    loop = Pack(
        [Member(number=n, task=task) for n, task in enumerate(tasks)], device="cpu", engine="loop"
    )
    evaluated = pack.evaluate()
    for number, expected in loop.evaluate().items():
        assert evaluated[number] == pytest.approx(expected, rel=1e-6)


def test_an_evaluation_that_agrees_is_made_together(slow_loop):
    pack = pack_of(STRUCTURES["convolutional"].tasks(dtype=torch.float32))
    assert pack.engine == "lowered"
    assert "evaluation" not in pack.refused


def test_where_a_gradient_is_nought_others_say_what_rounding_is():
    task = STRUCTURES["convolutional"].tasks(dtype=torch.float32)[0]
    plan, device = Plan.baseline("cpu").pin(optimizer="fused"), Device("cpu")
    steps = PackFeed(task, plan, device, lambda _: None).first_batches(
        [FeedPlace(task.order_seed, 0)], 3
    )
    reference = MemberAlone(Member(number=0, task=task), steps, plan, device)
    solo = reference._solo
    reference.check_state(solo.state())

    def with_momentum(index: int, change: float) -> dict[str, Any]:
        state = solo.state()
        momenta = [own["momentum_buffer"] for own in state["optimizer"]["state"].values()]
        largest = max(momentum.square().mean().sqrt().item() for momentum in momenta)
        momenta[index].add_(change * largest)
        return state

    names = [name for name, _ in solo.model.named_parameters()]
    bias = names.index("0.bias") if "0.bias" in names else 1
    reference.check_state(with_momentum(bias, 3e-5))  # as another algorithm rounds
    with pytest.raises(NotPackable, match="momentum_buffer of member 0 is"):
        reference.check_state(with_momentum(bias, 1e-3))


# ---- a task trained alone, to given steps
