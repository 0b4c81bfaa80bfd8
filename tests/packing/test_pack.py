"""A member of a pack learns what it learns alone: trajectories, bits, isolation, and controls that
must fail."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from packing.comparing import (
    MOST_IN_FLOAT64,
    alone,
    bits,
    deviation,
    deviation_of_figures,
    difference,
    packed,
    results,
)
from packing.structures import (
    CONFIGS,
    NUM_STEPS,
    STRUCTURES,
    Structure,
    plain_mlp,
    sgd,
    without_dropout,
)
from volano import Task
from volano.errors import UsageError
from volano.packing import Member, Pack
from volano.packing.equality import UNIT_OF_PRECISION
from volano.packing.replay import plan_of_replays, replay

_MARKS = (pytest.mark.compiles, pytest.mark.slow)
_COMPILED = ("compiled", "each")
ENGINES = ["loop", "lowered", *(pytest.param(engine, marks=_MARKS) for engine in _COMPILED)]
# What an engine does not take; it says so, and another one trains it.
_WORDS = {"GRU": "gru", "LSTM": "lstm", "channels last": "another memory format"}
REFUSED = {(engine, name) for engine in ("lowered", *_COMPILED) for name in _WORDS}
# Figures of evaluations and of training are read as fp32.
_MOST_IN_FIGURES = 4e-7
# Its product of a batch with all members' columns is one: a kernel may round a column by its place,
# as those of a processor with AMX do.
_ONE_PRODUCT, _ROUNDED = "of one's own", 1e-5
# Steps of a pack in fp32: some, and as many again after what is tested has been done to it.
_SOME, _ALL = 4, 8

CASES = [
    pytest.param(engine, name, id=f"{engine}-{name}", marks=_MARKS if engine in _COMPILED else ())
    for engine in ("loop", "lowered", *_COMPILED)
    for name in STRUCTURES
    if (engine, name) not in REFUSED
]
BY_PROGRAM = [case for case in CASES if case.values[0] != "loop"]
# Another structure's model with the other's optimizer: both are there without them.
_AGAIN = ("mlp with SGD", "convolutional with AdamW")
DIFFERENT = [case for case in CASES if case.values[1] not in _AGAIN]


@functools.cache
def tasks_of(name: str, dtype: torch.dtype = torch.float32) -> list[Task]:
    return STRUCTURES[name].tasks(dtype=dtype)


@functools.cache
def alone_in_float64(name: str) -> list[dict[str, Any]]:
    """What each task of a structure comes to alone: the same for all engines."""
    return [alone(task, NUM_STEPS) for task in tasks_of(name, torch.float64)]


@functools.cache
def straight(
    engine: str, name: str
) -> tuple[Pack, list[dict[str, Any]], dict[int, dict[str, Any]]]:
    """A pack that is trained without anything happening to it, its results, and its states
    half-way."""
    pack = Pack(
        [Member(number=n, task=task) for n, task in enumerate(tasks_of(name))],
        device="cpu",
        engine=engine,
    )
    pack.advance(dict.fromkeys(pack.numbers, _SOME))
    pack.losses()
    states = pack.states()
    pack.advance(dict.fromkeys(pack.numbers, _ALL))
    return pack, results(pack), states


# ---- T1: in float64 the same trajectory, though every number differs between the members


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_members_learn_what_they_learn_alone(engine: str, name: str) -> None:
    solos = alone_in_float64(name)
    pairs = list(zip(packed(tasks_of(name, torch.float64), NUM_STEPS, engine), solos, strict=True))
    assert max(deviation(*pair) for pair in pairs) <= MOST_IN_FLOAT64
    assert max(deviation_of_figures(*pair) for pair in pairs) <= _MOST_IN_FIGURES
    # The members did different things.
    assert deviation(solos[0], solos[1]) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_orders_of_data_may_differ(engine: str) -> None:
    tasks = [STRUCTURES["mlp"].task(config, data_seed=seed) for seed, config in enumerate(CONFIGS)]
    for task, mine in zip(tasks, packed(tasks, 15, engine), strict=True):  # 12 batches are an epoch
        assert deviation(mine, alone(task, 15)) <= MOST_IN_FLOAT64


@pytest.mark.parametrize(
    ("engine", "name"), sorted(case for case in REFUSED if case[0] not in _COMPILED)
)
def test_an_engine_says_what_it_does_not_take(engine: str, name: str) -> None:
    with pytest.raises(
        UsageError, match=f"Engine {engine} does not take these tasks; got .*{_WORDS[name]}"
    ):
        packed(STRUCTURES[name].tasks(), 1, engine)


# ---- T2: the same bits


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_loop_gives_the_bits_of_a_training_alone(name: str) -> None:
    for task, mine in zip(tasks_of(name), straight("loop", name)[1], strict=True):
        assert bits(mine) == bits(alone(task, _ALL, first=_SOME))


@pytest.mark.parametrize(("engine", "name"), DIFFERENT)
def test_members_that_leave_move_nobody(engine: str, name: str) -> None:
    whole, expected, _ = straight(engine, name)
    members = [Member(number=n, task=task) for n, task in enumerate(tasks_of(name))]
    pack = Pack(members, device="cpu", engine=engine, family=whole.family)
    pack.advance(dict.fromkeys(pack.numbers, _SOME))
    pack.losses()
    pack.keep([1, 3])
    pack.advance(dict.fromkeys(pack.numbers, _ALL))
    assert (pack.numbers, whole.numbers) == ([1, 3], [0, 1, 2, 3])
    for mine, other in zip(results(pack), (expected[1], expected[3]), strict=True):
        assert bits(mine) == bits(other)


@pytest.mark.parametrize(("engine", "name"), CASES)
def test_a_member_goes_on_in_another_pack_from_its_state_whatever_its_place(
    engine: str, name: str
) -> None:
    whole, expected, states = straight(engine, name)
    order = [2, 0, 3, 1]
    members = [Member(number=n, task=tasks_of(name)[n], state=states[n]) for n in order]
    pack = Pack(members, device="cpu", engine=engine, family=whole.family)
    pack.advance(dict.fromkeys(pack.numbers, _ALL))
    for number, mine in zip(order, results(pack), strict=True):
        if name == _ONE_PRODUCT:
            assert deviation(mine, expected[number]) < _ROUNDED
        else:
            assert bits(mine) == bits(expected[number])


@pytest.mark.parametrize("name", ["mlp", "drawing"])
def test_a_program_that_was_made_for_another_first_member_gives_the_same_bits(name: str) -> None:
    order = [2, 0, 3, 1]
    turned = packed([tasks_of(name)[n] for n in order], _ALL, "lowered")
    for number, mine in zip(order, turned, strict=True):
        expected = straight("lowered", name)[1][number]
        assert bits({**mine, "training_loss": 0.0}) == bits({**expected, "training_loss": 0.0})


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
            here = (
                dataclasses.replace(config, lr=1e30) if hit and cause == "learning rate" else config
            )
            alpha = 1e38 if hit and cause != "learning rate" else 0.5 + index
            model = lambda config=here, alpha=alpha: Failing(plain_mlp(config), alpha)  # noqa: E731
            made.append(structure.task(here, dtype=torch.float32, model=model))
        return made

    healthy, hurt = packed(tasks(broken=False), 6, engine), packed(tasks(broken=True), 6, engine)
    assert math.isnan(hurt[2]["training_loss"])
    for slot in (0, 1, 3):
        assert bits(hurt[slot]) == bits(healthy[slot])


# ---- T4: in fp32 and bf16 a pack deviates no further than two trainings alone that differ by
# rounding. The loop gives the bits of a training alone, above.


@functools.cache
def band_of_rounding(name: str, precision: str) -> list[list[tuple[float, float]]]:
    """Of two members the loss and the training loss alone, and in a training that rounds
    otherwise."""
    plan, unit = plan_of_replays("cpu", precision), UNIT_OF_PRECISION[precision]
    bands = []
    for task in tasks_of(name)[1::2]:
        solo = replay(task, [_SOME, _ALL], plan=plan)[1]
        shaken = replay(task, [_SOME, _ALL], plan=plan.pin(optimizer="as_given"), shake=unit)[1]
        losses = (solo.metrics["loss"], shaken.metrics["loss"])
        bands.append([losses, (solo.training_loss, shaken.training_loss)])
    return bands


def stay_within(bands: list[list[tuple[float, float]]], found: list[Any], unit: float) -> None:
    for mine, of_member in zip(found, bands, strict=True):
        figures = (mine["metrics"]["loss"], mine["training_loss"])
        for figure, (solo, shaken) in zip(figures, of_member, strict=True):
            assert abs(figure - solo) <= 10 * abs(solo - shaken) + 2 * unit * abs(solo)


@pytest.mark.parametrize(("engine", "name"), BY_PROGRAM)
def test_a_pack_stays_within_the_band_of_rounding(engine: str, name: str) -> None:
    found = straight(engine, name)[1][1::2]
    stay_within(band_of_rounding(name, "fp32"), found, UNIT_OF_PRECISION["fp32"])


@pytest.mark.parametrize(
    ("engine", "name"), [case for case in DIFFERENT if case.values[0] != "loop"]
)
def test_a_pack_in_bf16_stays_within_its_band(engine: str, name: str) -> None:
    members = [Member(number=number, task=task) for number, task in enumerate(tasks_of(name)[1::2])]
    pack = Pack(members, device="cpu", engine=engine, precision="bf16")
    for step in (_SOME, _ALL):
        pack.losses()
        pack.advance(dict.fromkeys(pack.numbers, step))
    stay_within(band_of_rounding(name, "bf16"), results(pack), UNIT_OF_PRECISION["bf16"])


# ---- T5: controls: each breaks one rule, and the comparison of T1 must see it


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_swapped_learning_rates_show(engine: str) -> None:
    tasks = STRUCTURES["mlp"].tasks()
    swapped = [
        dataclasses.replace(tasks[0], optimizer=tasks[1].optimizer),
        dataclasses.replace(tasks[1], optimizer=tasks[0].optimizer),
    ]
    together = packed(swapped, 10, engine)
    assert (
        min(deviation(mine, alone(task, 10)) for mine, task in zip(together, tasks, strict=False))
        > 1e-3
    )


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_a_shared_dropout_mask_shows(engine: str) -> None:
    def task(
        seed: int,
    ) -> Task:  # of one start, whatever the seed: only what is drawn in training differs
        def model() -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return STRUCTURES["mlp"].model(CONFIGS[0]).double()

        return STRUCTURES["mlp"].task(CONFIGS[0], model=model, seed=seed)

    solos = [alone(task(seed), 5) for seed in (1, 2)]
    shared, own = packed([task(1), task(1)], 5, engine), packed([task(1), task(2)], 5, engine)
    assert deviation(shared[1], solos[1]) > 1e-3
    assert deviation(own[1], solos[1]) <= MOST_IN_FLOAT64


@pytest.mark.parametrize("engine", ["loop", "lowered"])
def test_a_buffer_that_is_left_out_shows(engine: str) -> None:
    structure = Structure(
        model=lambda config: still(STRUCTURES["convolutional"].model(config)), optimizer=sgd
    )

    def still(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = (
                    0.0  # its statistics stay at their first values; training does not use them
                )
        return model

    right = [alone(STRUCTURES["convolutional"].task(config), 5) for config in CONFIGS]
    wrong = packed(structure.tasks(), 5, engine)
    assert all(deviation(mine, solo) > 1e-3 for mine, solo in zip(wrong, right, strict=True))
    # The parameters alone do not show it.
    names = [name for name, _ in STRUCTURES["convolutional"].model(CONFIGS[0]).named_parameters()]
    for mine, solo in zip(wrong, right, strict=True):
        assert (
            max(difference(mine["model"][name], solo["model"][name]) for name in names)
            <= MOST_IN_FLOAT64
        )


@pytest.mark.parametrize("engine", ["loop", "lowered"])
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
    assert (
        max(difference(right["model"][name], solo["model"][name]) for name in names)
        <= MOST_IN_FLOAT64
    )
    assert max(difference(wrong["model"][name], solo["model"][name]) for name in names) > 1e-3


def test_members_that_keep_their_best_weights_are_refused() -> None:
    task = dataclasses.replace(tasks_of("mlp")[0], keep="best", patience=2)
    with pytest.raises(UsageError, match="must keep their last weights.*of members \\[3\\]"):
        Pack([Member(number=3, task=task)], device="cpu")
