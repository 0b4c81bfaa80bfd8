"""Trainings alone and in packs, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from volano import Plan, Task
from volano.packing import Member, Pack
from volano.training import Session

# Observed after 96 steps of AdamW in float64, 16 configurations with all their numbers different:
# 1.7e-14.
MOST_IN_FLOAT64 = 1e-10
_PARTS = ("model", "optimizer", "ema")
_PLAN = Plan.baseline().pin(optimizer="fused")


def alone(task: Task, num_steps: int, *, first: int = 0) -> dict[str, Any]:
    """What a training alone comes to, as a member's state, with its evaluation and its mean loss
    since a step."""
    session = Session(task, _PLAN, on_notice=lambda _: None)
    losses = []
    for batch in session.feed.batches(session.order.keys(0, num_steps)):
        losses.append(session.step_once(batch, session.step).loss.item())
        session.step += 1
    state = {name: value for name, value in session.state_dict().items() if name in _PARTS}
    return {
        **state,
        "metrics": session.evaluate(),
        "training_loss": math.fsum(losses[first:]) / (num_steps - first),
    }


def packed(tasks: Sequence[Task], num_steps: int, engine: str) -> list[dict[str, Any]]:
    """The same of a pack's members."""
    pack = pack_of(tasks, engine=engine)
    assert pack.engine == engine
    return results(advanced(pack, num_steps))


def results(pack: Pack) -> list[dict[str, Any]]:
    states, metrics, losses = pack.states(), pack.evaluate(), pack.losses()
    return [
        {
            **{part: states[n][part] for part in _PARTS},
            "metrics": metrics[n],
            "training_loss": losses[n],
        }
        for n in pack.numbers
    ]


def deviation(mine: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference between two states, over the largest value of the tensor in which it
    lies."""
    pairs = [pair for part in _PARTS for pair in pairs_of(mine[part], other[part])]
    assert any(isinstance(one, Tensor) for one, _ in pairs)
    return max(difference(one, two) for one, two in pairs)


def deviation_of_figures(mine: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The same of what is said of them."""
    return max(
        difference(*pair)
        for part in ("metrics", "training_loss")
        for pair in pairs_of(mine[part], other[part])
    )


def pairs_of(mine: Any, other: Any) -> Any:
    if isinstance(mine, Mapping):
        assert mine.keys() == other.keys()
        for name in mine:
            yield from pairs_of(mine[name], other[name])
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(other)
        for one, two in zip(mine, other, strict=True):
            yield from pairs_of(one, two)
    elif isinstance(mine, Tensor | float):
        yield mine, other


def difference(mine: Any, other: Any) -> float:
    one, two = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, other))
    assert one.shape == two.shape
    if not one.numel() or bool(((one == two) | (one.isnan() & two.isnan())).all()):
        return 0.0
    difference = (one - two).abs().max().item() / max(two.abs().max().item(), 1e-6)
    return difference if math.isfinite(difference) else math.inf


def bits(result: Any) -> list[Any]:
    """All tensors and numbers of a result, to be compared for equality."""
    return [
        value.tolist() if isinstance(value, Tensor) else value
        for value, _ in pairs_of(result, result)
    ]


def pack_of(tasks: Sequence[Task], *, engine: str = "lowered", **options: Any) -> Pack:
    """A pack on the CPU."""
    members = [Member(number=number, task=task) for number, task in enumerate(tasks)]
    return Pack(members, device="cpu", engine=engine, **options)


def advanced(pack: Pack, *goals: int) -> Pack:
    """The pack, trained to each of these steps in turn."""
    for goal in goals:
        pack.advance(dict.fromkeys(pack.numbers, goal))
    return pack


def assert_same_bits(one: Pack, other: Pack) -> None:
    """All that members of two packs come to is the same."""
    for mine, its in zip(results(one), results(other), strict=True):
        assert bits(mine) == bits(its)
