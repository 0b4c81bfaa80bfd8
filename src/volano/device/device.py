"""The one door to the machine: torch.accelerator if there is one, the CPU as a device among others.

Outside this folder no code names a kind of device. A service that a backend does not offer (memory
figures, streams, pinned memory) is asked for once and answered with None or False, never guessed.
"""

from __future__ import annotations

import contextlib
import inspect
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from volano.device.fp32_products import fp32_products
from volano.device.graphs import DeviceGraph, has_graphs
from volano.device.library_choices import (
    attention_for_any_shape,
    can_autotune_kernels,
    can_benchmark_convolutions,
    convolutions_benchmarked,
    deterministic_algorithms,
)
from volano.device.memory.allocator import (
    can_keep_freed_memory,
    freed_memory_kept,
    freed_memory_returned,
    give_back_freed_memory,
)
from volano.device.memory.host_memory import (
    available_host_bytes,
    host_memory_bytes,
    peak_resident_bytes,
    resident_bytes,
)
from volano.device.random_state import Generators
from volano.device.torch_private import has_bf16_units
from volano.errors import PlanError, UsageError

_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The bytes in use now, at the peak since the last reset, and in all; None if the device does
    not report them."""

    allocated: int | None
    peak: int | None
    total: int | None


class Device(Generators):
    """A torch device with the services that a training needs.

    Args:
        name: the device's name as torch writes it (``"cpu"``, ``"mps"``, ``"xpu:1"``); None is the
            accelerator, or the CPU if there is none.

    Raises:
        UsageError: torch does not know the device, or it is not on this machine.
    """

    def __init__(self, name: str | None = None) -> None:
        self.torch_device = _find(name)
        self.is_cpu = self.torch_device.type == "cpu"
        self._module: Any = None if self.is_cpu else torch.get_device_module(self.torch_device)

    @staticmethod
    def count() -> int:
        """Returns the number of accelerators of this machine."""
        return torch.accelerator.device_count()

    @property
    def name(self) -> str:
        """The device's name as torch writes it."""
        return str(self.torch_device)

    @property
    def kind(self) -> str:
        """The device's type without an index, as a plan names it that several ranks share."""
        return self.torch_device.type

    def move(self, batch: Any, *, non_blocking: bool = False) -> Any:
        """Moves the batch (a tensor or a tree of them) to this device."""
        from volano.task import map_tensors

        return map_tensors(
            lambda tensor: tensor.to(self.torch_device, non_blocking=non_blocking), batch
        )

    def synchronize(self) -> None:
        """Waits until everything queued on the device has run."""
        if not self.is_cpu:
            torch.accelerator.synchronize(self.torch_device)

    # ---- memory

    def memory(self) -> Memory:
        """Returns the device's memory; for the CPU, this process's resident memory and the
        machine's memory."""
        if self.is_cpu:
            allocated, peak = resident_bytes(), peak_resident_bytes()
            # The kernel updates the two figures at different times.
            return Memory(
                allocated=allocated, peak=max(peak, allocated or 0), total=host_memory_bytes()
            )
        # A backend without statistics says 0; no process that asks has never allocated anything.
        peak = self._ask(torch.accelerator.max_memory_allocated) or None
        return Memory(
            allocated=None if peak is None else self._ask(torch.accelerator.memory_allocated),
            peak=peak,
            total=self._memory_info()[1],
        )

    def reset_peak_memory(self) -> None:
        """Starts a new peak; on the CPU the peak is the process's and stays."""
        if not self.is_cpu:
            self._ask(torch.accelerator.reset_peak_memory_stats)

    def free_bytes(self) -> int | None:
        """Returns the bytes that a new allocation could take now, or None if the device does not
        report them."""
        if self.is_cpu:
            return available_host_bytes()
        return self._memory_info()[0]

    def release_memory(self) -> None:
        """Gives back freed memory that is held for later: to the device, and to the host's
        kernel."""
        give_back_freed_memory()
        if not self.is_cpu:
            self._ask(lambda _: torch.accelerator.empty_cache())

    def _memory_info(self) -> tuple[int | None, int | None]:
        """Returns free bytes and all bytes of an accelerator, None if it does not report them."""
        # torch.accelerator asks from torch 2.10 on, modules of some devices before.
        info = self._ask(lambda device: torch.accelerator.get_memory_info(device))
        info = info or self._ask(lambda device: self._module.mem_get_info(device))
        return (None, None) if info is None else (int(info[0]), int(info[1]))

    def memory_fraction_setter(self) -> Callable[[float], None] | None:
        """Returns a function that bounds this process's share of the memory, or None."""
        setter = getattr(self._module, "set_per_process_memory_fraction", None)
        return None if setter is None else lambda share: setter(share, self.torch_device)

    @property
    def has_growing_segments(self) -> bool:
        """The answer whether the allocator's segments can grow here: by NVIDIA's driver on Linux,
        but not on Windows' (pytorch#192330)."""
        is_linux = sys.platform == "linux" and "microsoft" not in platform.release().lower()
        return self.kind == "cuda" and torch.version.hip is None and is_linux

    def _ask(self, question: Callable[..., Any]) -> Any:
        # Backends without an allocator of their own raise RuntimeError or lack the hook altogether.
        try:
            return question(self.torch_device)
        except (RuntimeError, NotImplementedError, AttributeError):
            return None

    @property
    def can_keep_memory(self) -> bool:
        """Checks whether the host's allocator can keep freed memory (a plan's
        ``allocator="keep"``)."""
        return can_keep_freed_memory()

    @cached_property
    def can_pin(self) -> bool:
        """The answer whether copies from page-locked host memory run in parallel to the
        computation."""
        if self.is_cpu:
            return False
        try:
            return torch.empty(1).pin_memory().is_pinned()
        except (RuntimeError, NotImplementedError):
            return False

    def to_host(self, tensor: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """Copies a tensor to the host's memory, page-locked if the device can. The copy is complete
        when the device has been synchronized, or the next copy of it to the device has. Strides are
        kept if they leave no gaps.

        Args:
            tensor: a tensor on this device.
            target: an earlier result of this method for a tensor like it, to be overwritten.
        """
        if target is None:
            try:
                target = torch.empty_like(tensor, device="cpu", pin_memory=self.can_pin)
            except (
                NotImplementedError
            ):  # the backend locks pages, but has no allocator of locked pages
                target = torch.empty_like(tensor, device="cpu").pin_memory()
        return target.copy_(tensor, non_blocking=self.can_pin)

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Returns a tensor of the host on this device. If the device can, the host does not wait
        for what is queued there, as it would with a copy from pageable memory."""
        tensor = tensor.pin_memory() if self.can_pin else tensor
        return tensor.to(self.torch_device, non_blocking=self.can_pin)

    def mark(self) -> Callable[[], object]:
        """Returns a function that waits until all has run that is queued now; if the device has no
        events, also what is queued until it is called."""
        if self.is_cpu:
            return self.synchronize
        event: Any = self._ask(lambda _: self.event())
        if event is None:
            return self.synchronize
        event.record(self.current_stream())

        def wait() -> None:
            try:
                event.synchronize()
            except (RuntimeError, NotImplementedError, AttributeError):
                self.synchronize()

        return wait

    def lock_pages(self, memory: torch.Tensor) -> bool:
        """Page-locks host memory that is already allocated, so that copies from it run in parallel
        to the computation.

        Returns False if the device cannot; ``memory`` is then unchanged. Unlock locked memory
        before it is freed.
        """
        runtime = self._host_runtime()
        if runtime is None or not memory.nbytes:  # locking 0 bytes is an error there
            return False
        if int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0)) == 0:
            return True
        with contextlib.suppress(RuntimeError):  # the next kernel raises it: one nobody needs
            torch.zeros(1, device=self.torch_device)
        return False

    def unlock_pages(self, memory: torch.Tensor) -> None:
        """Unlocks memory that :meth:`lock_pages` has locked."""
        runtime = self._host_runtime()
        if runtime is not None:
            runtime.cudaHostUnregister(memory.data_ptr())

    def _host_runtime(self) -> Any:
        # torch offers locking of foreign memory through the runtime of CUDA and ROCm only.
        runtime = getattr(self._module, "cudart", None)
        return runtime() if self.can_pin and runtime is not None else None

    def stream(self) -> torch.Stream | None:
        """Returns a stream next to the current one, or None if the device has no streams."""
        if self.is_cpu:
            return None
        try:
            return torch.Stream(device=self.torch_device)
        except (RuntimeError, NotImplementedError):
            return None

    def keep_until_done(self, tensor: torch.Tensor, stream: torch.Stream) -> None:
        """Keeps a tensor's memory from being given to others until what is queued on another stream
        has run, though the tensor may be dropped at once."""
        tensor.record_stream(stream)

    def event(self) -> torch.Event:
        """Returns an event on this device."""
        return torch.Event(device=self.torch_device)

    def current_stream(self) -> torch.Stream:
        """Returns the stream on which the computation is queued."""
        return torch.accelerator.current_stream(self.torch_device)

    @cached_property
    def has_graphs(self) -> bool:
        """The answer whether the device records kernels and launches them as one."""
        return not self.is_cpu and has_graphs(self._module)

    def graph(self) -> DeviceGraph:
        """Returns a graph in which nothing is recorded yet."""
        return DeviceGraph(self._module)

    @property
    def can_benchmark_convolutions(self) -> bool:
        """The answer whether a plan's ``conv_benchmark`` has an effect here."""
        return can_benchmark_convolutions(self.torch_device.type)

    @property
    def can_autotune_kernels(self) -> bool:
        """The answer whether a plan's ``compile_mode="max-autotune"`` has an effect here."""
        return can_autotune_kernels(self.torch_device.type)

    def attention_for_any_shape(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context for batches of ever other shapes."""
        return contextlib.nullcontext() if self.is_cpu else attention_for_any_shape()

    # ---- arithmetic

    def supports(self, precision: str) -> bool:
        """Checks whether a plan's ``precision`` can run here."""
        if precision == "fp32":
            return True
        if precision == "tf32":
            return (
                not self.is_cpu
                and hasattr(self._module, "get_device_capability")
                and self._has_tf32()
            )
        if self.is_cpu:
            return precision == "bf16"
        supported = getattr(self._module, "get_amp_supported_dtype", None)
        if supported is not None:
            return _AUTOCAST_DTYPES[precision] in supported()
        if precision == "bf16" and hasattr(self._module, "is_bf16_supported"):
            return bool(self._module.is_bf16_supported())
        return torch.amp.is_autocast_available(self.torch_device.type)

    @cached_property
    def has_bf16_units(self) -> bool:
        """The answer whether the device multiplies bf16 on units made for it. A CPU without them
        computes it by conversions, 6 to 100 times slower than fp32 (docs/log.md), and so does an
        accelerator whose backend says that it emulates the type. Others that support it are taken
        to have them."""
        if self.is_cpu:
            return has_bf16_units()
        asked = getattr(self._module, "is_bf16_supported", None)
        if asked is not None and "including_emulation" in inspect.signature(asked).parameters:
            return bool(asked(including_emulation=False))
        return self.supports("bf16")

    def _has_tf32(self) -> bool:
        # Tensor cores round fp32 inputs to tf32 from compute capability 8.0 on (NVIDIA A100
        # whitepaper).
        capability = self._module.get_device_capability()  # ROCm's look alike and mean other things
        return torch.version.hip is None and isinstance(capability, tuple) and capability >= (8, 0)

    def has_fused(self, optimizer_class: type[torch.optim.Optimizer]) -> bool:
        """Checks whether the one-kernel update of a class of torch.optim runs here; tried on one
        parameter."""
        parameter = torch.zeros(1, device=self.torch_device, requires_grad=True)
        parameter.grad = torch.zeros_like(parameter)
        make: Any = optimizer_class
        try:
            make([parameter], lr=0.1, fused=True).step()
        except (RuntimeError, NotImplementedError, TypeError):
            return False
        return True

    def check_precision(self, precision: str) -> None:
        """Raises PlanError if the device cannot compute in ``precision``."""
        if not self.supports(precision):
            able = [name for name in ("fp32", "tf32", "bf16", "fp16") if self.supports(name)]
            raise PlanError(
                f"The device {self.name} computes in {', '.join(able)}",
                got=f"precision={precision!r}",
                remedy=f"Pin `precision` to {able[-1]}",
            )

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[Any]:
        """Returns a context in which operations run in ``precision``; a null context for fp32 and
        tf32."""
        dtype = _AUTOCAST_DTYPES.get(precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.torch_device.type, dtype=dtype)

    def grad_scaler(self, precision: str) -> torch.amp.GradScaler | None:
        """Returns a scaler for fp16, whose gradients underflow without one (Micikevicius et al.
        2018); None otherwise."""
        return torch.amp.GradScaler(self.torch_device.type) if precision == "fp16" else None

    @contextlib.contextmanager
    def settings(
        self,
        *,
        precision: str,
        threads: int | None = None,
        allocator: str = "system",
        conv_benchmark: bool = False,
        deterministic: bool = False,
    ) -> Iterator[None]:
        """Returns a context with the process-wide settings of a plan, which are put back
        afterwards.

        Raises:
            PlanError: on leaving, if ``deterministic`` and an operation inside could not be.
        """
        old_threads = torch.get_num_threads()
        with contextlib.ExitStack() as stack:
            if not self.is_cpu:  # seeds and generator states belong to the current device
                old_index = torch.accelerator.current_device_index()
                torch.accelerator.set_device_index(self.torch_device)
                stack.callback(torch.accelerator.set_device_index, old_index)
            if allocator == "keep":
                stack.enter_context(freed_memory_kept())
            elif allocator == "return":
                stack.enter_context(freed_memory_returned())
            stack.callback(torch.set_num_threads, old_threads)
            if threads is not None:
                torch.set_num_threads(threads)
            stack.enter_context(fp32_products("tf32" if precision == "tf32" else "ieee"))
            if conv_benchmark:  # else as the process has it
                stack.enter_context(convolutions_benchmarked(True))
            if deterministic:  # likewise
                stack.enter_context(deterministic_algorithms())
            yield


def _find(name: str | None) -> torch.device:
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if name is None:
        return torch.device("cpu") if accelerator is None else _indexed(accelerator)
    here = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            "The device must be one that torch knows", got=repr(name), remedy=f"Here: {here}"
        ) from error
    if device.type == "cpu":
        return torch.device("cpu")
    if (
        accelerator is None
        or device.type != accelerator.type
        or (device.index or 0) >= torch.accelerator.device_count()
    ):
        raise UsageError(
            "The device must be one of this machine's", got=repr(name), remedy=f"Here: {here}"
        )
    return _indexed(device)


def _indexed(device: torch.device) -> torch.device:
    # A name without an index stands for the current device: ranks of one machine share a plan, and
    # each has its own accelerator.
    index = torch.accelerator.current_device_index() if device.index is None else device.index
    return torch.device(device.type, index)
