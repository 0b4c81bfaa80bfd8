"""The predictions of a step before it runs: its operations, its memory, its time. Values only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PhaseName = Literal["forward", "backward", "optimizer"]
Kind = Literal[
    "matmul",
    "convolution",
    "attention",
    "recurrent",
    "pointwise",
    "reduction",
    "normalization",
    "other",
]
# The origin of a figure: tables alone, tables corrected by measurements on this device, the same
# scaled to steps of this very plan, or measured.
Origin = Literal["prior", "calibrated", "timed", "measured"]
CATEGORIES = (
    "parameters",
    "gradients",
    "optimizer_state",
    "activations",
    "temporaries",
    "batch",
    "data",
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of a step, with the number of its like executions.

    Attributes:
        name: its name as torch's dispatcher writes it, ``"aten.mm.default"``.
        phase: the phase of the step.
        kind: what limits it, coarsely.
        dtype: type of the arithmetic, ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"fp64"``, ``"int"``.
        flops: floating-point operations of one execution; a multiply-add counts two.
        num_bytes: bytes read plus written by one execution.
        count: number of executions in a step.
    """

    name: str
    phase: PhaseName
    kind: Kind
    dtype: str
    flops: int
    num_bytes: int
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class MemoryPrediction:
    """The bytes that a step holds at its peak.

    Attributes:
        peak: most likely live bytes on the device.
        lower: lower bound; equal to ``peak`` if the step is eager.
        upper: upper bound.
        categories: category of :data:`CATEGORIES` -> bytes live at the peak; they add up to
            ``peak``.
        operator: the operation during which the peak stands, with its module (``"aten.mm in
            blocks.3.mlp"``).
        host: bytes that the plan keeps in host memory for the device (offload); 0 for the CPU.
        origin: the origin of the figures.
    """

    peak: int
    lower: int
    upper: int
    categories: Mapping[str, int] = field(default_factory=dict)
    operator: str = ""
    host: int = 0
    origin: Origin = "prior"

    def with_more(self, category: str, num_bytes: int) -> MemoryPrediction:
        """Returns the prediction with so many more bytes of a category."""
        more = {category: self.categories.get(category, 0) + num_bytes}
        return dataclasses.replace(
            self,
            peak=self.peak + num_bytes,
            lower=self.lower + num_bytes,
            upper=self.upper + num_bytes,
            categories={**self.categories, **more},
        )


@dataclass(frozen=True, kw_only=True)
class TimePrediction:
    """The seconds of a step.

    Attributes:
        step: seconds of one optimizer step.
        startup: seconds paid once: compilation, warming up.
        bounds: ``"compute"``, ``"memory"``, ``"launch"``, ``"host"``, and ``"network"`` if ranks
            share a model -> seconds of the step that each explains; they add up to ``step``.
        kinds: kind of operation -> seconds of the step that go into it; with the launches and the
            host's link as ``"launch"`` and ``"host"`` they add up to ``step``.
        origin: the origin of the figures.
    """

    step: float
    startup: float = 0.0
    bounds: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, float] = field(default_factory=dict)
    origin: Origin = "prior"

    def scaled(self, factor: float) -> TimePrediction:
        """Returns the prediction with all seconds of the step times a factor."""
        return dataclasses.replace(
            self,
            step=self.step * factor,
            bounds={name: seconds * factor for name, seconds in self.bounds.items()},
            kinds={name: seconds * factor for name, seconds in self.kinds.items()},
        )
