"""The random numbers of a pack: each member's own, as it would draw them alone.

A training alone seeds torch's generator before each forward pass, and stochastic layers draw from
it in turn. A pack finds out once which draws a forward pass makes, and before each step makes them
for each member from a generator with that member's seed, into the member's slice of a tensor [K,
...]. On the CPU these are the very bits of the training alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from volano.device import Device, random_state_kept
from volano.device.torch_private import foreach_copy_

_BITS = 53  # bits of a double's fraction
_LOWEST = -(2**63)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """A draw of a forward pass.

    Attributes:
        shape, dtype: shape and type of what a member draws.
        strides: the strides in a training alone, because torch draws in the order of the memory.
            None is contiguous.
        drop: the probability to drop, for a dropout: a number, or the name of the number that
            varies between members. None for another draw.
        is_plain: whether torch may have a kernel of its own for this dropout: of single elements,
            and not in place.
        make: ``(generator) -> tensor``, for another draw.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    strides: tuple[int, ...] | None = None
    drop: float | str | None = None
    is_plain: bool = True
    make: Callable[[torch.Generator], Tensor] | None = None


class Draws:
    """The draws of all members, made step by step.

    Args:
        draws: the draws in the order of the forward pass.
        numbers: for each member the numbers that vary, by name.
        generator: a generator on the device.
        device: the device of the tensors.
        by_kernel: whether dropouts are drawn by the kernel that computes them alone, from the
            device's default generator, which ``generator`` then is; see :func:`is_dropout_fused`.

    Attributes:
        tensors: for each draw the argument of :func:`noise_of`, each tensor [K, ...]. They stay the
            same tensors.
    """

    def __init__(
        self, draws: Sequence[Draw], numbers: Sequence[Mapping[str, float]],
        generator: torch.Generator, device: torch.device, *, by_kernel: bool = False,
    ) -> None:  # fmt: skip
        self._generator, self._by_kernel = generator, by_kernel
        self.tensors: list[tuple[Tensor, ...]] = []
        # Masks that a kernel has drawn in this step, each with the slice that it is copied into.
        self._drawn: list[tuple[Tensor, Tensor]] = []
        self._fills: list[list[Callable[[], Any]]] = [[] for _ in numbers]
        for draw in draws:
            if draw.drop is None:
                self._add_values(draw, device)
            else:
                drop = [
                    row[draw.drop] if isinstance(draw.drop, str) else draw.drop for row in numbers
                ]
                self._add_dropout(draw, drop, device)

    def fill(self, seeds: Sequence[int]) -> None:
        """Draws for one step; ``seeds`` are those of the members' forward passes."""
        seed_next = self._generator.manual_seed
        for seed, fills in zip(seeds, self._fills, strict=True):
            seed_next(seed)
            for fill in fills:
                fill()
        if self._drawn:  # in a launch or a few for all members
            owns, kept = zip(*self._drawn, strict=True)
            foreach_copy_(list(owns), list(kept))
            self._drawn.clear()

    def _add_values(self, draw: Draw, device: torch.device) -> None:
        values = torch.empty(len(self._fills), *draw.shape, dtype=draw.dtype, device=device)
        self.tensors.append((values,))
        for fills, own in zip(self._fills, values.unbind(0), strict=True):
            fills.append(functools.partial(self._copy_draw, own, draw))

    def _copy_draw(self, own: Tensor, draw: Draw) -> None:
        assert draw.make is not None
        own.copy_(draw.make(self._generator))

    def _add_dropout(self, draw: Draw, drop: list[float], device: torch.device) -> None:
        keep, by_kernel = [1.0 - value for value in drop], self._by_kernel and draw.is_plain
        # torch divides its noise of ones and zeros by the probability to keep; if that is 0 or 1 it
        # draws nothing.
        scales = torch.ones(len(keep), dtype=draw.dtype)
        for slot, value in enumerate(keep):
            if value > 0.0:
                scales[slot].div_(value)
        by_bits = not by_kernel and draws_are_bits(device, draw.dtype)
        dtype = torch.bool if by_kernel else torch.int64 if by_bits else draw.dtype
        raw = torch.zeros(len(keep), *draw.shape, dtype=dtype, device=device)
        if draw.strides is not None:
            raw = raw.as_strided(raw.shape, (raw[0].numel(), *draw.strides))
        limits: tuple[Tensor, ...] = ()
        if by_bits:
            of_bits = [math.ceil(value * 2**_BITS) for value in keep]
            limits = (torch.tensor(of_bits, device=device),)
        self.tensors.append((raw, *limits, scales.to(device)))
        ones = torch.ones_like(raw[0], dtype=draw.dtype) if by_kernel else raw
        for fills, own, value in zip(self._fills, raw.unbind(0), keep, strict=True):
            if 0.0 < value < 1.0 and by_kernel:
                fills.append(functools.partial(self._draw_by_kernel, own, ones, value))
            elif 0.0 < value < 1.0:
                fills.append(
                    functools.partial(own.random_, _LOWEST, None, generator=self._generator)
                    if by_bits
                    else functools.partial(own.bernoulli_, value, generator=self._generator)
                )
            elif value == 1.0 and not by_bits:
                own.fill_(1)

    def _draw_by_kernel(self, own: Tensor, ones: Tensor, keep: float) -> None:
        # Which number of the generator decides on which element depends on size, type and strides:
        # the input has those of what is dropped alone.
        _, kept = torch.native_dropout(ones, 1.0 - keep, True)
        self._drawn.append((own, kept))


def noise_of(given: tuple[Tensor, ...]) -> Tensor:
    """Returns the factor of a dropout, or the values of another draw, from one entry of
    :attr:`Draws.tensors`."""
    if len(given) == 1:
        return given[0]
    raw, *limits, scale = given
    kept = (raw & (2**_BITS - 1)) < limits[0] if limits else raw
    return kept.to(scale.dtype) * scale


@functools.cache
def is_dropout_fused(device_name: str) -> bool:
    """Checks whether dropout keeps other elements than ``bernoulli_`` draws from the same seed, as
    the one kernel for it does on some accelerators. Found out by drawing."""
    device = Device(device_name)
    if device.is_cpu or device.default_generator() is None:
        return False
    ones = torch.ones(4096, device=device.torch_device)
    with random_state_kept(device):
        device.seed(1)
        kept = torch.nn.functional.dropout(ones, 0.25)
        device.seed(1)
        drawn = torch.empty_like(ones).bernoulli_(0.75)
    return not torch.equal(kept != 0, drawn != 0)


@functools.cache
def draws_are_bits(device: torch.device, dtype: torch.dtype) -> bool:
    """Checks whether ``bernoulli_(p)`` keeps an element if the low 53 bits of the generator's next
    64 are below ``p * 2**53``.

    This holds for torch's own kernel on a CPU, and then drawing the bits is twice as fast. It does
    not hold for MKL's stream, which torch takes on some processors, nor on accelerators. Found out
    by drawing.
    """
    if device.type != "cpu":
        return False
    one, other = torch.Generator(), torch.Generator()
    for seed, keep, size in (
        (1, 0.9, 5),
        (2, 0.5, 4096),
        (3, 1.0 / 3.0, 1000),
        (2**40 + 1, 0.8, 70_001),
    ):
        kept = torch.empty(size, dtype=dtype).bernoulli_(keep, generator=one.manual_seed(seed))
        bits = torch.empty(size, dtype=torch.int64).random_(
            _LOWEST, None, generator=other.manual_seed(seed)
        )
        below = (bits & (2**_BITS - 1)) < math.ceil(keep * 2**_BITS)
        if (
            not torch.equal(kept.bool(), below)
            or one.get_state().tolist() != other.get_state().tolist()
        ):
            return False
    return True


def is_random(function: Any) -> bool:
    """Checks whether an operator of torch draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(function, "tags", ())
