"""Predicts how long a step takes, from its operations and the device's peak rates.

An operation needs time for its arithmetic and time for its bytes, and the host needs some
microseconds to start it. The roofline (Williams, Waterman and Patterson 2009) takes the longer of
the first two, as if they overlapped perfectly; measured steps are explained better by their sum
(docs/log.md), since a kernel first waits for data and last for its results. Neither
limit is reached in practice: each kind of operation has its *efficiencies*, the shares of both that
measured steps showed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from volano.device import KnownDevice, Limits
from volano.plan import Plan
from volano.plan.prediction import Kind, Operation, Origin, TimePrediction

BOUNDS = ("compute", "memory", "launch", "host")
OPERATION_KINDS = get_args(Kind)
_MATRIX_KINDS = ("matmul", "convolution", "attention", "recurrent")
_FUSED_KINDS = ("pointwise", "normalization", "reduction")

# ---- accelerators. Shares of the peaks in the catalogue that training reaches. Products and
# attention (its operations counted as torch's counter does, the future of a causal one too) fitted
# on 139 published runs of language models on A100 (docs/log.md); convolutions on
# those of residual networks on an RTX 3090, whose clock runs ahead of its data sheet, so no more
# than nine tenths (benchmarks/vision_fit.py). Recurrent layers: assumed.
_ACCELERATOR_COMPUTE = {
    "matmul": 0.8,
    "attention": 0.62,
    "convolution channels_last": 0.9,
    "convolution contiguous": 0.6,
    "recurrent": 0.3,
}
_ACCELERATOR_MEMORY = 0.8
# Seconds of the host per operation of eager PyTorch with autograd, on a server's core.
_ACCELERATOR_LAUNCH = 8e-6

# ---- CPUs. Shares of the measured rate of a copy; one core of an AMD EPYC with AVX-512, torch
# 2.13, operations of a residual network, a transformer and an LSTM timed one by one
# (benchmarks/time_prediction.py --operations).
_CPU_MEMORY = {"pointwise": 1.0, "normalization": 0.5, "reduction": 0.5}
# Elementary functions are bound by arithmetic that no table counts: gelu and its like reach 16 to
# 19 of 40 GB/s.
_CPU_TRANSCENDENTAL = 0.4
_TRANSCENDENTAL = ("gelu", "silu", "sigmoid", "tanh", "exp", "log", "pow", "sin", "cos", "erf")
# A step of small layers against a chain of small operations: modules, autograd's graph,
# dispatching, the loss.
_CPU_LAUNCH_OF_CHAIN = 3.0
_CPU_LAUNCH = 8e-6
_CPU_COMPUTE = {"matmul": 0.95, "attention": 0.5}

# ---- torch.compile. What is left of bytes and kernels when all that lies between two matrix
# operations becomes one kernel, which reads what comes from outside and writes what is used
# outside: medians 0.67 and 0.24 of five recorded networks in two precisions (benchmarks/fusion.py).
# Norms and sums need a kernel or two more.
_FUSED_BYTES = 0.67
_FUSED_LAUNCHES = 0.3
# Seconds for guards and wrappers of a compiled forward and backward pass, noticeable in small steps
# (a perceptron's of a millisecond).
_COMPILED_CALL = 1e-4
# Seconds once, plus for each operation of the passes: two cores, nothing in a cache. Steps of 22 to
# 233 operations took 3.5 to 54 s on a busy machine, 3 to 20 s on a quiet one; the rest is a
# calibration's.
_COMPILE_ONCE, _COMPILE_OPERATION = 3.0, 0.08


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The rates of a device, per second.

    Attributes:
        name: the device's name.
        flops: precision -> floating-point operations per second at most.
        kernels: ``"attention bf16"``, ``"convolution channels_last fp32"`` -> measured rate of such
            operations; if one is missing, ``flops`` times the kind's ``efficiency`` stands for it.
        efficiency: ``"matmul"``, ``"convolution contiguous"`` -> share of ``flops`` that such
            operations reach.
        memory: bytes per second read plus written at most.
        memory_efficiency: kind of operation -> share of ``memory`` that it reaches.
        launch: seconds of the host per operation in eager mode.
        ahead: whether the host starts operations ahead of the device, so that only the slower of
            the two counts.
        link: bytes per second between host and device; None if they share memory.
        origin: ``"prior"`` from tables, ``"calibrated"`` if the device itself was measured.
    """

    name: str
    flops: Mapping[str, float]
    memory: float
    launch: float
    ahead: bool
    kernels: Mapping[str, float] = field(default_factory=dict)
    efficiency: Mapping[str, float] = field(default_factory=lambda: dict(_ACCELERATOR_COMPUTE))
    memory_efficiency: Mapping[str, float] = field(default_factory=dict)
    link: float | None = None
    origin: Origin = "prior"

    @classmethod
    def of_known(cls, device: KnownDevice) -> Rates:
        """Returns the rates of an absent accelerator of the catalogue."""
        return cls(
            name=device.name,
            flops=device.flops,
            memory=device.memory_rate,
            launch=_ACCELERATOR_LAUNCH,
            ahead=True,
            efficiency={**_ACCELERATOR_COMPUTE, "matmul": device.product_share},
            memory_efficiency=dict.fromkeys(OPERATION_KINDS, _ACCELERATOR_MEMORY),
            link=device.host_link,
        )

    @classmethod
    def of_measured(
        cls,
        limits: Limits,
        kernels: Mapping[str, float] | None = None,
        *,
        name: str = "this device",
    ) -> Rates:
        """Returns the rates of a device on which ``limits`` and ``kernels``
        (:func:`volano.device.measure_kernels`) were measured."""
        kernels = dict(kernels or {})
        chain = kernels.pop("launch", None)
        on_host = limits.host_to_device is None
        flops = {"fp32": limits.matmul_fp32, "tf32": limits.matmul_tf32}
        flops |= dict.fromkeys(("bf16", "fp16"), limits.matmul_bf16)
        default = _CPU_LAUNCH if on_host else _ACCELERATOR_LAUNCH
        return cls(
            name=name,
            flops={precision: rate for precision, rate in flops.items() if rate is not None},
            kernels=kernels,
            efficiency=dict(_CPU_COMPUTE if on_host else _ACCELERATOR_COMPUTE),
            memory=limits.memory_copy,
            memory_efficiency=dict(_CPU_MEMORY) if on_host else {},
            launch=default if chain is None else chain * (_CPU_LAUNCH_OF_CHAIN if on_host else 1.0),
            ahead=not on_host,
            link=limits.host_to_device,
            origin="calibrated",
        )

    def kernel_rate(self, operation: Operation, plan: Plan) -> float | None:
        """Returns the measured floating-point operations per second of such operations, bytes
        included."""
        return self.kernels.get(f"{_library(operation, plan)} {_arithmetic(operation, plan)}")

    def compute_rate(self, operation: Operation, plan: Plan) -> float:
        """Returns the floating-point operations per second that such an operation reaches, its
        bytes apart."""
        if operation.kind not in _MATRIX_KINDS:
            return self.flops["fp32"]  # ordinary units do these, in whatever type
        return self._peak(_arithmetic(operation, plan)) * self.efficiency.get(
            _library(operation, plan), 1.0
        )

    def memory_rate(self, operation: Operation) -> float:
        """Returns the bytes per second that such an operation reaches."""
        share = self.memory_efficiency.get(operation.kind, 1.0)
        if not self.ahead and any(word in operation.name for word in _TRANSCENDENTAL):
            share = min(share, _CPU_TRANSCENDENTAL)
        return self.memory * share

    def _peak(self, dtype: str) -> float:
        # A type without units of its own runs on those of fp32, as bf16 does on a V100; fp64 needs
        # two of them.
        rate = self.flops.get(dtype, self.flops["fp32"])
        return self.flops["fp32"] / 2 if dtype == "fp64" else rate


def rates_needed(operations: Iterable[Operation], plan: Plan) -> frozenset[str]:
    """Returns the names of what must be measured of a device to predict a step, besides what every
    prediction needs: ``"convolution contiguous fp32"``, and types such as ``"bf16"``."""
    matrix = [operation for operation in operations if operation.kind in _MATRIX_KINDS]
    types = {_arithmetic(operation, plan) for operation in matrix}
    return frozenset(types | {f"{_library(one, plan)} {_arithmetic(one, plan)}" for one in matrix})


def predict_time(
    operations: Sequence[Operation],
    rates: Rates,
    plan: Plan,
    *,
    moved_bytes: int = 0,
    num_repeats: int = 1,
) -> TimePrediction:
    """Predicts the seconds of a step that executes ``operations``.

    Args:
        operations: operations of the step, forward to optimizer, as the plan executes them
            (recomputed ones twice); for a compiled plan those of the eager step, because fusion is
            estimated here.
        rates: the device's rates.
        plan: the plan under which the step runs.
        moved_bytes: bytes moved between host and device in a step: what is offloaded, there and
            back.
        num_repeats: for how many blocks one compilation serves, if blocks are compiled.
    """
    served = num_repeats if plan.compile_mode == "blocks" else 1
    bounds: dict[str, float] = dict.fromkeys(BOUNDS, 0.0)
    kinds: dict[str, float] = {}
    for operation in operations:
        compute, memory = _seconds(operation, rates, plan)
        bounds["compute"] += compute
        bounds["memory"] += memory
        kinds[operation.kind] = kinds.get(operation.kind, 0.0) + compute + memory
    launches = rates.launch * num_launches(operations, plan) + (
        _COMPILED_CALL if plan.compile else 0.0
    )
    if rates.ahead:
        launches = max(0.0, launches - bounds["compute"] - bounds["memory"])
    bounds["launch"] = launches
    bounds["host"] = moved_bytes / rates.link if rates.link else 0.0
    return TimePrediction(
        step=sum(bounds.values()),
        startup=predict_compilation(operations, served) if plan.compile else 0.0,
        bounds=bounds,
        kinds={**kinds, "launch": bounds["launch"], "host": bounds["host"]},
        origin=rates.origin,
    )


def _library(operation: Operation, plan: Plan) -> str:
    """Returns what a kernel's rate depends on, in addition to its type."""
    return (
        f"convolution {plan.memory_format}" if operation.kind == "convolution" else operation.kind
    )


def _arithmetic(operation: Operation, plan: Plan) -> str:
    if operation.dtype != "fp32" or operation.kind not in _MATRIX_KINDS:
        return operation.dtype
    # A recurrent layer's backward pass gives fp32 gradients of what it computes in the plan's type.
    rounds = plan.precision == "tf32" or operation.kind == "recurrent"
    return plan.precision if rounds else operation.dtype


def predict_compilation(operations: Iterable[Operation], num_repeats: int = 1) -> float:
    """Predicts the seconds that ``torch.compile`` takes for the passes of a step, or for one of
    ``num_repeats`` blocks that share its code."""
    count = sum(operation.count for operation in operations if operation.phase != "optimizer")
    return _COMPILE_ONCE + _COMPILE_OPERATION * count / max(1, num_repeats)


def _seconds(operation: Operation, rates: Rates, plan: Plan) -> tuple[float, float]:
    """Returns the seconds of arithmetic and of bytes."""
    num_bytes = operation.num_bytes * (_FUSED_BYTES if _is_fused(operation, plan) else 1.0)
    memory = operation.count * num_bytes / rates.memory_rate(operation)
    measured = rates.kernel_rate(operation, plan)
    if measured is None:
        return operation.count * operation.flops / rates.compute_rate(operation, plan), memory
    # The measured kernel's rate includes its bytes, unless this operation has many more.
    compute = operation.count * operation.flops / measured
    return compute, max(0.0, memory - compute)


def num_launches(operations: Iterable[Operation], plan: Plan) -> float:
    """Returns how many kernels the host starts for the operations."""
    # A graph's kernels are launched as one.
    return sum(
        operation.count * (_FUSED_LAUNCHES if _is_fused(operation, plan) else 1.0)
        for operation in operations
        if not plan.graph or operation.phase == "optimizer"
    )


def _is_fused(operation: Operation, plan: Plan) -> bool:
    # The objective is compiled, the optimizer's update is not.
    return plan.compile and operation.phase != "optimizer" and operation.kind in _FUSED_KINDS
