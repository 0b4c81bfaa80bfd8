"""What is known of a step before it is run: its operations, its memory, its time. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]
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
# How a figure came about: from tables alone, from tables corrected by what was measured on this
# device, or measured.
Origin = Literal["prior", "calibrated", "measured"]
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
    """One operation of a step, as often as it is executed alike.

    Attributes:
        name: as torch's dispatcher writes it, ``"aten.mm.default"``.
        phase: of the step.
        kind: what limits it, coarsely.
        dtype: of the arithmetic, ``"fp32"``, ``"bf16"``, ``"fp16"``, ``"fp64"``, ``"int"``.
        flops: floating-point operations of one execution; a multiply-add counts two.
        num_bytes: read plus written by one execution.
        count: executions in a step.
    """

    name: str
    phase: Phase
    kind: Kind
    dtype: str
    flops: int
    num_bytes: int
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class MemoryPrediction:
    """Bytes that a step holds at its peak.

    Attributes:
        peak: most likely live bytes on the device.
        lower: it is not less. Equal to ``peak`` where the step is eager.
        upper: it is not more.
        categories: of :data:`CATEGORIES`, bytes live at the peak; they add up to ``peak``.
        operator: the operation during which the peak stands, with its module (``"aten.mm in
            blocks.3.mlp"``).
        host: bytes that the plan keeps in host memory for the device (offload); 0 for the CPU.
        origin: of the figures.
    """

    peak: int
    lower: int
    upper: int
    categories: Mapping[str, int] = field(default_factory=dict)
    operator: str = ""
    host: int = 0
    origin: Origin = "prior"


@dataclass(frozen=True, kw_only=True)
class TimePrediction:
    """Seconds of a step.

    Attributes:
        step: seconds of one optimizer step.
        startup: paid once: compilation, warming up.
        bounds: ``"compute"``, ``"memory"``, ``"launch"``, ``"host"``, and ``"network"`` where ranks
            share a model -> seconds of the step that each explains; they add up to ``step``.
        kinds: kind of operation -> seconds of the step that go into it; with the launches and the
            host's link as ``"launch"`` and ``"host"`` they add up to ``step``.
        origin: of the figures.
    """

    step: float
    startup: float = 0.0
    bounds: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, float] = field(default_factory=dict)
    origin: Origin = "prior"
