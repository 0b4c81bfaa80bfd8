"""Repeats a step that runs out of memory, in smaller parts.

The batch stays what it is, so the experiment does too. Composer (MosaicML) halves its micro-batch
likewise; there some ranks waited for ever for one that had run out, so here several ranks stop
instead.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

import torch

from volano.device import Device
from volano.errors import RunError, first_line
from volano.plan import Plan

_Result = TypeVar("_Result")
# Whether the loss of a batch is the sum of its parts', how that is found out, or None.
MaySplit = bool | Callable[[], bool | None] | None

# Backends that raise a plain RuntimeError: the host's allocator (c10/core/impl/alloc_cpu.cpp),
# Apple's, libraries of kernels that allocate by themselves (cuBLAS and cuDNN also say it by having
# no engine left: pytorch#108645), C++'s own exception, and Unified Runtime's for Intel's devices
# (ur_result_t).
_TEXTS = (
    "DefaultCPUAllocator: ", "backend out of memory", "STATUS_ALLOC_FAILED", "std::bad_alloc",
    "DEVICE_ALLOCATION_FAILED", "CUFFT_ALLOC_FAILED", "unable to find an engine to execute",
    "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", "UR_RESULT_ERROR_OUT_OF_HOST_MEMORY",
)  # fmt: skip
# A library's handle that cannot be made says so for want of memory, and for other reasons too.
_NO_HANDLE = ("CUBLAS_STATUS_NOT_INITIALIZED", "CUDNN_STATUS_NOT_INITIALIZED")
_ROOM_FOR_HANDLES = 2**30  # bytes
_WRAPPING = ("NCCL", "Triton Error", "driver error")
# oneDNN, when there is no room for a kernel that it has already chosen. (If it has none, the
# text continues.)
_WHOLE_TEXTS = ("could not create a primitive", "could not execute a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that the host or a device has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, torch.AcceleratorError):
        return "out of memory" in str(error)
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if any(part in text for part in _NO_HANDLE):
        free = Device().free_bytes()
        return free is not None and free < _ROOM_FOR_HANDLES
    # These wrap the runtime's text: exchanges, loading compiled kernels, and the driver where
    # segments grow.
    is_wrapped = "out of memory" in text and any(part in text for part in _WRAPPING)
    return is_wrapped or text.strip() in _WHOLE_TEXTS or any(part in text for part in _TEXTS)


def attempt(work: Callable[[], _Result]) -> tuple[_Result | None, str]:
    """Returns the result of ``work``, or None and the first line of its error if it ran out of
    memory.

    Nothing that it made is kept alive: a traceback would hold on to every frame's tensors.
    """
    try:
        return work(), ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return None, first_line(error)


def repeated(work: Callable[[], _Result], relieve: Callable[[str], None]) -> _Result:
    """Returns the result of ``work``, which is done again as often as it runs out of memory.

    ``relieve`` is called before that with the first line of the error: what was left is to be freed
    and less to be asked for, or an error raised if there is nothing less.
    """
    result, reason = attempt(work)
    while result is None:
        relieve(reason)
        result, reason = attempt(work)
    return result


class OutOfMemoryFallback:
    """Finds the next plan that takes less memory and leaves the experiment as it is.

    Args:
        start_recomputing: the function that makes the model forget activations from now on; False
            if it cannot.
        may_split: whether the loss of a batch is the sum of its parts', or a function that finds
            that out, which is asked once it matters. None is not known, and it is not split.
        ranks: the number of ranks that train together.
    """

    def __init__(
        self, start_recomputing: Callable[[], bool], *, may_split: MaySplit, ranks: int
    ) -> None:
        self._start_recomputing, self._may_split, self._ranks = start_recomputing, may_split, ranks

    def after(self, plan: Plan, num_examples: int, reason: str) -> Plan:
        """The plan under which a step of ``num_examples`` (of this rank) is tried again when
        ``plan`` has failed.

        Raises:
            RunError: there is none; it says what is missing.
        """
        size = min(plan.micro_batch or num_examples, num_examples)
        smaller = max(1, size // 2)
        # What the others do by now waits for this one, and cannot be taken back.
        if self._ranks > 1:
            raise _out_of_memory(reason, plan, size, f"Pin `micro_batch` {smaller}")
        if callable(self._may_split) and size > 1:
            self._may_split = self._may_split()
        if self._may_split is True and size > 1:
            return plan.pin(micro_batch=smaller)
        # A model that is compiled already would not see that its blocks are wrapped.
        if plan.recompute == "none" and not plan.compile and self._start_recomputing():
            return plan.pin(recompute="blocks")
        if size == 1:
            remedy = (
                "Train a smaller model, with `offload` or on several ranks with `sharding` "
                "full, or a larger device"
            )
        elif self._may_split is None:
            remedy = (
                f"Pin `micro_batch` {smaller}, if the loss of a batch is the sum over its examples"
            )
        else:
            remedy = (
                "Take a smaller `batch_size`, since what is learned from a batch is not the sum "
                "of its parts"
            )
        raise _out_of_memory(reason, plan, size, remedy)


def _out_of_memory(reason: str, plan: Plan, size: int, remedy: str) -> RunError:
    facts = f"{reason} (micro_batch={size}, recompute={plan.recompute}, offload={plan.offload})"
    return RunError("A step must fit into the memory", got=facts, remedy=remedy)


def update_failed(error: BaseException) -> RunError:
    """Returns the error for an update that ran out of memory: some weights may be new and some old,
    so it cannot be repeated."""
    return RunError(
        "An update of the weights must fit into the memory; this one is half done, and the run "
        "can only be resumed from a checkpoint",
        got=first_line(error),
        remedy="Pin the plan's `optimizer` fused, which needs no copy of the gradients, or "
        "`sharding` full on several ranks; "
        "then volano resume",
    )
