"""The choices that a device's libraries make between kernels for the same operation, and the
processor between numbers near 0 and 0."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import torch

from volano.device.torch_private import has_triton, inductor_settings
from volano.errors import PlanError

# The environment's word on the workspaces of matrix products, and the values under which these
# repeat themselves (cuBLAS, "Results reproducibility"). torch and the library read it at the first
# product of a process, and never again.
_WORKSPACES, _REPEATABLE = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
_LACKS = re.compile(r"(\S+) does not have a deterministic implementation")


def can_benchmark_convolutions(device_type: str) -> bool:
    """Returns whether the library of convolutions can time its algorithms for each new shape."""
    # cuDNN and MIOpen read one setting. Deterministic algorithms are not timed.
    return (
        device_type == "cuda"
        and torch.backends.cudnn.is_available()
        and not torch.are_deterministic_algorithms_enabled()
    )


@contextlib.contextmanager
def convolutions_benchmarked(is_on: bool) -> Iterator[None]:
    """Returns a context in which algorithms of convolutions are timed, or guessed."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = is_on
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextlib.contextmanager
def attention_for_any_shape() -> Iterator[None]:
    """Returns a context in which attention runs on kernels that need no plan of their own for each
    new shape. cuDNN's takes 50 to 200 ms for one, which batches of ever other lengths pay each
    time."""
    attention: Any = torch.backends.cuda
    before = attention.cudnn_sdp_enabled()
    attention.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        attention.enable_cudnn_sdp(before)


def can_autotune_kernels(device_type: str) -> bool:
    """Returns whether the compiler can time several kernels of its own for a product."""
    return device_type in ("cuda", "xpu") and has_triton()


@contextlib.contextmanager
def repeatable_products(is_wanted: bool = True) -> Iterator[None]:
    """Returns a context in which the environment asks for matrix products that give the same bits
    each time. It has an effect only if no product was computed on the device before."""
    before = os.environ.get(_WORKSPACES)
    if not is_wanted or before in _REPEATABLE:
        yield
        return
    os.environ[_WORKSPACES] = _REPEATABLE[0]
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WORKSPACES]
        else:
            os.environ[_WORKSPACES] = before


@contextlib.contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Returns a context in which every operation gives the same bits each time, eager or compiled.

    Raises:
        PlanError: on leaving, if an operation inside could not.
    """
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    compiler = inductor_settings()
    compiles = getattr(compiler, "deterministic", None)  # torch 2.10 sets it by itself
    with repeatable_products(), convolutions_benchmarked(False):
        torch.use_deterministic_algorithms(True)
        # For finding reads of memory that nobody wrote; it costs a pass over all new memory.
        memory.fill_uninitialized_memory = False
        try:
            yield
        except RuntimeError as error:
            if (said := why_not_repeatable(error)) is not None:
                raise said from error
            raise
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warns)
            memory.fill_uninitialized_memory = fills
            if compiles is not None:
                compiler.deterministic = compiles


def why_not_repeatable(error: RuntimeError) -> PlanError | None:
    """Returns torch's refusal of an operation that may give other bits each time, with its remedy;
    None for any other error."""
    if lacking := _LACKS.search(str(error)):
        return PlanError(
            "Under `deterministic` each operation of a step must have an implementation that gives "
            "the same bits each time",
            got=f"{lacking[1]}, which has none",
            remedy="Use another operation in its place, or leave `deterministic` out",
        )
    if _WORKSPACES in str(error):
        return PlanError(
            f"{_WORKSPACES} must be set before the first matrix product of a deterministic process",
            got="a process that multiplied matrices on the device before",
            remedy=f"Set {_WORKSPACES}={_REPEATABLE[0]} in its environment when it is started",
        )
    return None


@contextlib.contextmanager
def denormals_flushed() -> Iterator[bool]:
    """Returns a context in which this thread, and those that it starts, take numbers below the
    smallest normal one (1.2e-38 in fp32) for 0; it gives False if the processor cannot.

    Averages of gradients that have become 0 decay into such numbers and stay there: nine tenths of
    the smallest are rounded to the smallest. An update in which they are many takes three times as
    long (docs/log.md, "Denormals"). A training moves by less than its rounding: weights by 1e-30.
    """
    if are_denormals_flushed():
        yield True
        return
    is_set = torch.set_flush_denormal(True)
    try:
        yield is_set
    finally:
        torch.set_flush_denormal(False)


def are_denormals_flushed() -> bool:
    """Returns whether this thread takes numbers below the smallest normal one for 0."""
    return torch.full((1,), _SMALLEST_NORMAL).div_(2.0).item() == 0.0
