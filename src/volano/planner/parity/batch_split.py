"""Checks whether a batch may be split: compares the gradient of its parts with that of the whole,
in float64.

BatchNorm in training mode, contrastive losses and losses that normalise over the batch without
declaring it in ``Loss.weight`` are recognised by their effect, not by their names.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.device.torch_private import tree_map_only
from volano.errors import reason_of
from volano.planner.parity.float64 import Float64
from volano.planner.parity.likeness import compare, names_of_none
from volano.planner.parity.pick_examples import unlikeness, values_of
from volano.planner.parity.probe_batch import Gradient, ProbeBatch, gradient_of, take_probe_batch
from volano.task import Batch, Task, num_bytes, num_examples, split

_NUM_EXAMPLES = 12
# The number of batches that are looked through for the check, and the seconds that it may take.
_NUM_BATCHES, _BATCH_SECONDS = 16, 0.5
# The largest difference that rounding explains. Sums of the same terms in another order differ by
# some hundred roundings of 1.1e-16 each, and a network that cancels digits multiplies them:
# BatchNorm after convolutions shows 1e-12. Operations that couple the examples of a batch differ by
# more than 1e-3.
_TOLERANCE = 1e-9
# The same with the roundings of fp32 (6e-8), for objectives that do not run in float64.
_TOLERANCE_FP32 = 1e-3


@dataclass(frozen=True, kw_only=True)
class BatchSplit:
    """The answer whether the batch of a task may be cut into micro-batches.

    Attributes:
        yes: whether it may.
        reason: the reason in words, with the arithmetic in which it was checked.
        difference: largest relative L2 difference between the gradients (or buffers, or losses, or
            what the passes add to parameters) of the parts together and those of the whole;
            infinite if the parts could not be computed.
    """

    yes: bool
    reason: str
    difference: float


def is_divisible(task: Task, device: Device | None = None) -> BatchSplit:
    """Measures divisibility on a few examples of the task's first batches, with the same random
    numbers in parts and whole.

    Random state is put back.
    """
    device = device or Device("cpu")
    with random_state_kept(device):
        return divisible(take_probe_batch(task, device), device)


def said_of_split(micro_batch: int, found: BatchSplit) -> str:
    """Returns the notice for a micro-batch that a person asks for although it changes the loss."""
    return (
        f"micro_batch={micro_batch} changes the experiment: {found.reason}. Return volano.Loss "
        "with `total` and `weight` from the objective, or do not set micro_batch"
    )


def divisible(probe_batch: ProbeBatch, device: Device) -> BatchSplit:
    """Measures divisibility on a probe batch that was taken already. Later batches are looked at
    too: the one whose examples differ most, in the number of padded places for example, and the
    one with the rarest value."""
    found = _divisible(probe_batch, device)
    for step in _telling_steps(probe_batch, device) if found.yes else ():
        found = _more(found, _divisible(_at(probe_batch, device, step), device))
        if not found.yes:
            break
    return found


def _more(one: BatchSplit, other: BatchSplit) -> BatchSplit:
    if one.yes != other.yes:
        return other if one.yes else one
    return max(one, other, key=lambda found: found.difference)


def _at(probe_batch: ProbeBatch, device: Device, step: int) -> ProbeBatch:
    return take_probe_batch(probe_batch.source, device, step=step)


def _telling_steps(probe_batch: ProbeBatch, device: Device) -> list[int]:
    """Returns the steps of later batches that may show what the first one does not."""
    end = time.monotonic() + _BATCH_SECONDS
    seen: list[tuple[float, int, int]] = []
    counts: Counter[Any] = Counter(values := values_of(probe_batch.batch))
    first = dict.fromkeys(values, probe_batch.step)
    stop = min(probe_batch.step + _NUM_BATCHES, probe_batch.source.num_steps)
    for step in range(probe_batch.step + 1, stop):
        if time.monotonic() > end:
            break
        with contextlib.suppress(Exception):  # the run itself reports such a batch
            batch = _at(probe_batch, device, step).batch
            seen.append((unlikeness(batch), num_bytes(batch), -step))
            counts.update(values := values_of(batch))
            first = {**dict.fromkeys(values, step), **first}
    steps = [-max(seen)[2]] if seen else []
    steps += [first[value] for value, _ in counts.most_common()[:-2:-1]]
    return [step for step in dict.fromkeys(steps) if step != probe_batch.step]


def _divisible(probe_batch: ProbeBatch, device: Device) -> BatchSplit:
    few = probe_batch.most_unlike(_NUM_EXAMPLES)
    if few.size < 2:
        return BatchSplit(yes=True, reason="a batch of one example has no parts", difference=0.0)
    try:
        return _compare(few, device, torch.float64)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything in a type that it was not made for
        why = reason_of(error)
    found = _compare(few, device, torch.float32)
    return BatchSplit(
        yes=found.yes,
        reason=f"{found.reason}; float64 fails with {why}",
        difference=found.difference,
    )


def _compare(probe_batch: ProbeBatch, device: Device, dtype: torch.dtype) -> BatchSplit:
    size = probe_batch.size
    kept: list[Tensor] = []
    wide = dtype == torch.float64
    cast = dtype if wide else None
    whole = gradient_of(
        probe_batch, device, [probe_batch.batch], _Kept(kept, wide), dtype=cast, nudged=True
    )
    difference, what = 0.0, "gradient"
    for parts in (
        split(probe_batch.batch, -(-size // 2)),
        split(probe_batch.batch, -(-size * 2 // 3)),
    ):
        try:
            replayed = _Replayed(kept, [num_examples(part) for part in parts], wide)
            found = gradient_of(
                probe_batch, device, _announced(parts, replayed), replayed, dtype=cast, nudged=True
            )
        except Exception as error:  # noqa: BLE001 - a part of a batch may be what a person's code does not take
            why = reason_of(error)
            return BatchSplit(
                yes=False, reason=f"a part of a batch fails with {why}", difference=math.inf
            )
        for name, value in _differences(found, whole).items():
            if not value <= difference:
                difference, what = value, name
    limit = _TOLERANCE if wide else _TOLERANCE_FP32
    precision = "float64" if wide else "fp32"
    said = (
        f"the {what} of {size} examples in two parts differs by {difference:.1e} of the "
        f"whole's in {precision}"
    )
    if not difference <= limit:
        reason = f"the objective couples the examples of a batch: {said}"
        return BatchSplit(yes=False, reason=reason, difference=difference)
    return BatchSplit(yes=True, reason=said, difference=difference)


def _announced(parts: list[Batch], replayed: _Replayed) -> Iterator[Batch]:
    for index, part in enumerate(parts):
        replayed.begin(index)
        yield part


def _differences(found: Gradient, whole: Gradient) -> dict[str, float]:
    pairs = {
        "gradient": (found.gradients, whole.gradients),
        "buffers": (found.buffers, whole.buffers),
        "parameters that the passes move": (found.moved, whole.moved),
    }
    differences = {name: _relative(ours, theirs) for name, (ours, theirs) in pairs.items()}
    differences["loss"] = abs(found.loss - whole.loss) / max(abs(whole.loss), 1e-300)
    return differences


def _relative(ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]) -> float:
    return math.inf if names_of_none(ours) != names_of_none(theirs) else compare(ours, theirs).error


class _Kept(Float64):
    """A mode that keeps the drawn numbers."""

    def __init__(self, kept: list[Tensor], wide: bool) -> None:
        super().__init__()
        self._kept, self._wide = kept, wide

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        return super().compute(func, args, kwargs) if self._wide else func(*args, **kwargs)

    def wanted(self, dtype: torch.dtype) -> torch.dtype:
        return super().wanted(dtype) if self._wide else dtype

    def noted(self, drawn: Any) -> Any:
        tree_map_only(Tensor, lambda tensor: self._kept.append(tensor.clone()), drawn)
        return drawn


class _Replayed(_Kept):
    """A mode that gives each part of a batch its rows of the numbers drawn for the whole."""

    def __init__(self, kept: list[Tensor], sizes: list[int], wide: bool) -> None:
        super().__init__(kept, wide)
        self._sizes = sizes
        self._index = self._position = 0

    def begin(self, index: int) -> None:
        """Announces that part ``index`` is about to be computed."""
        self._index, self._position = index, 0

    def noted(self, drawn: Any) -> Any:
        return tree_map_only(Tensor, self._rows, drawn)

    def _rows(self, drawn: Tensor) -> Tensor:
        whole = self._kept[self._position]
        self._position += 1
        if whole.shape == drawn.shape:
            return whole.clone()
        size, count = self._sizes[self._index], sum(self._sizes)
        start = sum(self._sizes[: self._index])
        (along,) = [d for d in range(whole.ndim) if whole.shape[d] != drawn.shape[d]]
        per_example, rest = divmod(whole.shape[along], count)
        assert not rest, "random numbers do not lie along the examples"
        return whole.narrow(along, start * per_example, size * per_example).clone()
