"""Starts processes, and carries values between them."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volano.record.format import signal_name


def start_method() -> str:
    """Returns how processes are started: fork, which carries lambdas and open data over without
    pickling, if the system has it."""
    methods = multiprocessing.get_all_start_methods()
    return "fork" if "fork" in methods else methods[0]


def pickled(value: Any) -> bytes:
    """Returns the value as bytes, tensors too: of a view only the part that it shows, not the whole
    memory behind it."""
    content = io.BytesIO()
    _Pickler(content, pickle.HIGHEST_PROTOCOL).dump(value)
    return content.getvalue()


def begin_as_child(ends: Sequence[Connection]) -> None:
    """Begins the work of a process that a run has started: closes the ends of connections that it
    inherited and that are not its own, and leaves Ctrl-C and a hangup, which reach the whole group
    of processes, to the one that started it. SIGTERM ends it."""
    for end in ends:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def end_processes(processes: Sequence[BaseProcess], patience: float) -> None:
    """Ends processes that were asked to end: waits ``patience`` seconds for all together, then
    terminates those that are left, then kills them. What the kernel holds fast outlives even that,
    and is left to it."""
    left = list(processes)
    for insist in (lambda _: None, BaseProcess.terminate, BaseProcess.kill):
        for process in left:
            insist(process)
        deadline = time.monotonic() + patience
        for process in left:
            process.join(max(0.0, deadline - time.monotonic()))
            if not process.is_alive():
                process.close()
        left = [process for process in left if is_open(process) and process.is_alive()]


def how_it_ended(process: BaseProcess, patience: float) -> str:
    """Waits for the end of a process, and says how it ended: ``was ended by SIGKILL``."""
    process.join(patience)
    code = process.exitcode
    if code is not None and code < 0:
        return f"was ended by {signal_name(-code)}"
    return f"ended with exit code {code}"


def is_open(process: BaseProcess) -> bool:
    """Returns whether a process was not closed yet."""
    return not getattr(process, "_closed", False)


def cpu_ticks(pid: int) -> int | None:
    """Returns the processor time that a process has used so far; None if the system does not
    tell."""
    fields = _status_of(pid)  # utime and stime are fields 14 and 15
    return None if fields is None else fields[10] + fields[11]


def parent_of(pid: int) -> int | None:
    """Returns the process that has started another; None if the system does not tell."""
    fields = _status_of(pid)
    return None if fields is None else fields[0]


def _status_of(pid: int) -> list[int] | None:
    """Returns the fields of proc_pid_stat(5) from the fourth on."""
    try:
        # After the name, which may hold anything, comes a letter: the state.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return [int(field) for field in fields[1:]]
    except (OSError, ValueError, IndexError):
        return None


class _Pickler(pickle.Pickler):
    """A pickler that writes tensors by their bytes. Multiprocessing sends tensors as shared memory
    by a file descriptor instead, which is bounded by /dev/shm and by the number of open files, and
    leaves a folder behind."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if value.requires_grad and not value.is_leaf:
            raise TypeError("a tensor that carries a graph of gradients; detach() it")
        if not _is_a_view(value):
            return NotImplemented
        return _owned(value).__reduce_ex__(pickle.HIGHEST_PROTOCOL)


def _is_a_view(tensor: Tensor) -> bool:
    if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.requires_grad:
        return False
    if not tensor.is_cpu or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return False
    return tensor.untyped_storage().nbytes() > _span(tensor) * tensor.itemsize


def _owned(view: Tensor) -> Tensor:
    # Pickling stores the whole memory behind a view; this is only the view's part of it, with its
    # strides.
    span = view.as_strided((_span(view),), (1,)).clone()
    return span.as_strided(view.shape, view.stride())


def _span(tensor: Tensor) -> int:
    if not tensor.numel():
        return 0
    return 1 + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
