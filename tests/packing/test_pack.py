"""A member of a pack learns what it learns alone: trajectories, bits, isolation, and controls that must fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tests.packing.structures import CONFIGS, NUM_STEPS, STRUCTURES, Structure, plain_mlp, sgd, without_dropout
from torch import Tensor, nn

from conftest import runs_in_bf16
from volano import Plan, Task
from volano.errors import UsageError
from volano.packing import Member, Pack
from volano.packing.equality import UNIT_OF_PRECISION, plan_of_replays, replay
from volano.training import Session

_MARKS = (pytest.mark.compiles, pytest.mark.slow)
_COMPILED = ("compiled", "each")
ENGINES = ["loop", "lowered", *(pytest.param(engine, marks=_MARKS) for engine in _COMPILED)]
# What an engine does not take; it says so, and another one trains it.
_WORDS = {"GRU": "gru", "LSTM": "lstm", "channels last": "another memory format"}
REFUSED = {(engine, name) for engine in ("lowered", *_COMPILED) for name in _WORDS}
# Observed after 96 steps of AdamW in float64, 16 configurations with all their numbers different: 1.7e-14.
_MOST_IN_FLOAT64 = 1e-10
# Figures of evaluations and of training are read as fp32.
_MOST_IN_FIGURES = 4e-7
_PARTS = ("model", "optimizer", "ema")
_PLAN = Plan.baseline().pin(optimizer="fused")

CASES = [
    pytest.param(engine, name, id=f"{engine}-{name}", marks=_MARKS if engine in _COMPILED else ())
    for engine in ("loop", "lowered", *_COMPILED)
    for name in STRUCTURES
    if (engine, name) not in REFUSED
]


def alone(task: Task, num_steps: int) -> dict[str, Any]:
    """What a training alone comes to, as a member's state, with its evaluation and each step's loss."""
    session = Session(task, _PLAN, on_notice=lambda _: None)
    losses = []
    for batch in session.feed.batches(session.order.keys(0, num_steps)):
        losses.append(session.step_once(batch, session.step).loss.item())
        session.step += 1
    state = {name: value for name, value in session.state_dict().items() if name in _PARTS}
    return {**state, "metrics": session.evaluate(), "training_loss": math.fsum(losses) / len(losses)}


def packed(tasks: Sequence[Task], num_steps: int, engine: str) -> list[dict[str, Any]]:
    """The same of a pack's members."""
    pack = Pack([Member(number=number, task=task) for number, task in enumerate(tasks)], device="cpu", engine=engine)
    assert pack.engine == engine
    pack.advance(dict.fromkeys(pack.numbers, num_steps))
    return results(pack)


def results(pack: Pack) -> list[dict[str, Any]]:
    states, metrics, losses = pack.states(), pack.evaluate(), pack.losses()
    return [
        {**{part: states[n][part] for part in _PARTS}, "metrics": metrics[n], "training_loss": losses[n]}
        for n in pack.numbers
    ]


def deviation(mine: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference between two states, over the largest value of the tensor in which it lies."""
    pairs = [pair for part in _PARTS for pair in _pairs(mine[part], other[part])]
    assert any(isinstance(one, Tensor) for one, _ in pairs)
    return max(_difference(one, two) for one, two in pairs)


def deviation_of_figures(mine: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The same of what is said of them."""
    return max(_difference(*pair) for part in ("metrics", "training_loss") for pair in _pairs(mine[part], other[part]))


def _pairs(mine: Any, other: Any) -> Any:
    if isinstance(mine, Mapping):
        assert mine.keys() == other.keys()
        for name in mine:
            yield from _pairs(mine[name], other[name])
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(other)
        for one, two in zip(mine, other, strict=True):
            yield from _pairs(one, two)
    elif isinstance(mine, Tensor | float):
        yield mine, other


def _difference(mine: Any, other: Any) -> float:
    one, two = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, other))
    assert one.shape == two.shape
    if not one.numel() or bool(((one == two) | (one.isnan() & two.isnan())).all()):
        return 0.0
    difference = (one - two).abs().max().item() / max(two.abs().max().item(), 1e-6)
    return difference if math.isfinite(difference) else math.inf


def bits(result: Any) -> list[Any]:
    """All tensors and numbers of a result, to be compared for equality."""
    return [value.tolist() if isinstance(value, Tensor) else value for value, _ in _pairs(result, result)]


# ---- T1: in float64 the same trajectory, though every number differs between the members


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_members_learn_what_they_learn_alone(engine: str, name: str) -> None:
    tasks = STRUCTURES[name].tasks()
    together = packed(tasks, NUM_STEPS, engine)
    solos = [alone(task, NUM_STEPS) for task in tasks]
    assert max(deviation(mine, solo) for mine, solo in zip(together, solos, strict=True)) <= _MOST_IN_FLOAT64
    assert max(deviation_of_figures(*pair) for pair in zip(together, solos, strict=True)) <= _MOST_IN_FIGURES
    # The members did different things.
    assert deviation(solos[0], solos[1]) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_orders_of_data_may_differ(engine: str) -> None:
    tasks = [STRUCTURES["mlp"].task(config, data_seed=seed) for seed, config in enumerate(CONFIGS)]
    together = packed(tasks, 30, engine)
    for task, mine in zip(tasks, together, strict=True):
        assert deviation(mine, alone(task, 30)) <= _MOST_IN_FLOAT64


@pytest.mark.parametrize(("engine", "name"), sorted(case for case in REFUSED if case[0] not in _COMPILED))
def test_an_engine_says_what_it_does_not_take(engine: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"Engine {engine} takes these tasks; got .*{_WORDS[name]}"):
        packed(STRUCTURES[name].tasks(), 1, engine)


# ---- T2: the same bits


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_loop_gives_the_bits_of_a_training_alone(name: str) -> None:
    tasks = STRUCTURES[name].tasks(dtype=torch.float32)
    for task, mine in zip(tasks, packed(tasks, 25, "loop"), strict=True):
        assert bits(mine) == bits(alone(task, 25))


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_members_that_leave_move_nobody(engine: str, name: str) -> None:
    tasks = STRUCTURES[name].tasks(dtype=torch.float32)

    def trained(*, leave: bool) -> list[Any]:
        pack = Pack([Member(number=n, task=task) for n, task in enumerate(tasks)], device="cpu", engine=engine)
        pack.advance(dict.fromkeys(pack.numbers, 12))
        pack.losses()
        if leave:
            pack.keep([1, 3])
        pack.advance(dict.fromkeys(pack.numbers, 24))
        assert pack.numbers == ([1, 3] if leave else [0, 1, 2, 3])
        return results(pack)

    few, all_of_them = trained(leave=True), trained(leave=False)
    for mine, other in zip(few, (all_of_them[1], all_of_them[3]), strict=True):
        assert bits(mine) == bits(other)


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_the_order_of_the_members_does_not_matter(engine: str, name: str) -> None:
    tasks = STRUCTURES[name].tasks(dtype=torch.float32)
    order = [2, 0, 3, 1]
    straight, turned = packed(tasks, 15, engine), packed([tasks[place] for place in order], 15, engine)
    for place, mine in zip(order, turned, strict=True):
        assert bits(mine) == bits(straight[place])


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_a_member_goes_on_in_another_pack_from_its_state(engine: str, name: str) -> None:
    tasks = STRUCTURES[name].tasks(dtype=torch.float32)
    first = Pack([Member(number=n, task=task) for n, task in enumerate(tasks)], device="cpu", engine=engine)
    first.advance(dict.fromkeys(first.numbers, 10))
    first.losses()
    states = first.states()
    first.advance(dict.fromkeys(first.numbers, 20))
    again = [Member(number=n, task=task, state=states[n]) for n, task in enumerate(tasks)]
    second = Pack(again, device="cpu", engine=engine)
    second.advance(dict.fromkeys(second.numbers, 20))
    assert [bits(result) for result in results(second)] == [bits(result) for result in results(first)]


# ---- T3: what happens to one member reaches no other


class Failing(nn.Module):
    """Its outputs are no numbers where ``alpha`` is large."""

    def __init__(self, inner: nn.Module, alpha: float) -> None:
        super().__init__()
        self.inner, self.alpha = inner, alpha

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images) * self.alpha


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cause", ["learning rate", "number of the model"])
def test_a_member_without_numbers_leaves_the_others_as_they_are(engine: str, cause: str) -> None:
    structure = Structure(model=plain_mlp, optimizer=sgd)

    def tasks(*, broken: bool) -> list[Task]:
        made = []
        for index, config in enumerate(CONFIGS):
            hit = broken and index == 2
            here = dataclasses.replace(config, lr=1e30) if hit and cause == "learning rate" else config
            alpha = 1e38 if hit and cause != "learning rate" else 0.5 + index
            model = lambda config=here, alpha=alpha: Failing(plain_mlp(config), alpha)  # noqa: E731
            made.append(structure.task(here, dtype=torch.float32, model=model))
        return made

    healthy, hurt = packed(tasks(broken=False), 20, engine), packed(tasks(broken=True), 20, engine)
    assert math.isnan(hurt[2]["training_loss"])
    for slot in (0, 1, 3):
        assert bits(hurt[slot]) == bits(healthy[slot])


# ---- T4: in fp32 and bf16 a pack deviates no further than two trainings alone that differ by rounding


@pytest.mark.parametrize(("engine", "name"), CASES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pack_stays_within_the_band_of_rounding(precision: str, engine: str, name: str) -> None:
    if precision == "bf16" and name in ("LSTM", "GRU"):
        cells = getattr(nn, name)(8, 8, batch_first=True)
        if not runs_in_bf16(lambda x: cells(x)[0], torch.rand(2, 3, 8)):
            pytest.skip(f"this processor has no bf16 kernel for the {name}")
    tasks = STRUCTURES[name].tasks(dtype=torch.float32)
    members = [Member(number=number, task=task) for number, task in enumerate(tasks)]
    pack = Pack(members, device="cpu", engine=engine, precision=precision)
    pack.advance(dict.fromkeys(pack.numbers, 12))
    losses, metrics = pack.losses(), pack.evaluate()
    plan = plan_of_replays("cpu", precision)
    for number, task in enumerate(tasks):
        solo = replay(task, [12], plan=plan)[0]
        unit = UNIT_OF_PRECISION[precision]
        shaken = replay(task, [12], plan=plan.pin(optimizer="as_given"), shake=unit)[0]
        pairs = [
            (losses[number], solo.training_loss, shaken.training_loss),
            (metrics[number]["loss"], solo.metrics["loss"], shaken.metrics["loss"]),
        ]
        for mine, alone_, other in pairs:
            assert abs(mine - alone_) <= 10 * abs(alone_ - other) + 2 * unit * abs(alone_)


# ---- T5: controls: each breaks one rule, and the comparison of T1 must see it


@pytest.mark.parametrize("engine", ENGINES)
def test_swapped_learning_rates_show(engine: str) -> None:
    tasks = STRUCTURES["mlp"].tasks()
    swapped = [
        dataclasses.replace(tasks[0], optimizer=tasks[1].optimizer),
        dataclasses.replace(tasks[1], optimizer=tasks[0].optimizer),
    ]
    together = packed(swapped, 20, engine)
    assert min(deviation(mine, alone(task, 20)) for mine, task in zip(together, tasks, strict=False)) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shared_dropout_mask_shows(engine: str) -> None:
    def task(seed: int) -> Task:  # of one start, whatever the seed: only what is drawn in training differs
        def model() -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return STRUCTURES["mlp"].model(CONFIGS[0]).double()

        return STRUCTURES["mlp"].task(CONFIGS[0], model=model, seed=seed)

    solos = [alone(task(seed), 5) for seed in (1, 2)]
    shared, own = packed([task(1), task(1)], 5, engine), packed([task(1), task(2)], 5, engine)
    assert deviation(shared[1], solos[1]) > 1e-3
    assert deviation(own[1], solos[1]) <= _MOST_IN_FLOAT64


@pytest.mark.parametrize("engine", ENGINES)
def test_a_buffer_that_is_left_out_shows(engine: str) -> None:
    structure = Structure(model=lambda config: still(STRUCTURES["convolutional"].model(config)), optimizer=sgd)

    def still(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0  # its statistics stay at their first values; training does not use them
        return model

    right = [alone(STRUCTURES["convolutional"].task(config), 5) for config in CONFIGS]
    wrong = packed(structure.tasks(), 5, engine)
    assert all(deviation(mine, solo) > 1e-3 for mine, solo in zip(wrong, right, strict=True))
    # The parameters alone do not show it.
    names = [name for name, _ in STRUCTURES["convolutional"].model(CONFIGS[0]).named_parameters()]
    for mine, solo in zip(wrong, right, strict=True):
        assert max(_difference(mine["model"][name], solo["model"][name]) for name in names) <= _MOST_IN_FLOAT64


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_lost_their_tie_show(engine: str) -> None:
    structure = STRUCTURES["attention"]
    tied = structure.task(without_dropout(CONFIGS[1]))

    def untied_model() -> nn.Module:
        model = tied.model()
        model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        return model

    untied = dataclasses.replace(tied, model=untied_model)
    (right, wrong), solo = (
        packed([tied, tied], 5, engine)[0:1] + packed([untied, untied], 5, engine)[0:1],
        alone(tied, 5),
    )
    names = ["embed.weight", "head.weight"]
    assert max(_difference(right["model"][name], solo["model"][name]) for name in names) <= _MOST_IN_FLOAT64
    assert max(_difference(wrong["model"][name], solo["model"][name]) for name in names) > 1e-3
