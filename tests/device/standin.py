"""A stand-in accelerator for tests: "standin" computes on the host and refuses what a real device
refuses.

``install()`` registers it, once per process and for good. A standin tensor is an ordinary
``torch.Tensor`` whose storage says ``standin:0`` and carries, as its attribute ``_host``, the host
storage that holds the bytes. Sizes, strides and offsets of the two agree, so views, ``.data`` and
autograd's shallow copies alias as usual.

One boxed fallback serves every operator: it puts host views in place of standin tensors, runs the
operator on the host and dresses the results again. ``counters`` tells how often data crossed and
the host had to wait.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAME = "standin"


def can_be_installed() -> bool:
    """Returns whether this torch takes a device that is written in Python; 2.9 does not."""
    import torch.utils.backend_registration as registration

    return hasattr(registration, "_setup_privateuseone_for_python_backend")


class Counters(dict[str, int]):
    """What a training loop did that costs time on a real device.

    Keys: ``host_to_device`` and ``device_to_host`` copies; ``blocking_copies``, those without
    non_blocking; ``reads``, values and data-dependent shapes that the host waited for (item, equal,
    nonzero, a mask as an index); ``synchronize``, explicit waits for the device.
    """

    def reset(self) -> None:
        """All counts to 0."""
        keys = ("host_to_device", "device_to_host", "blocking_copies", "reads", "synchronize")
        self.update(dict.fromkeys(keys, 0))


counters = Counters()
counters.reset()

_C: Any = torch._C
_libraries: list[torch.library.Library] = []  # a registration lives as long as its Library
# The device's random state; Python hooks cannot make a device's own kind.
_generator = torch.Generator()

# Operators, besides all tagged pointwise, whose 0-dim host operand a CUDA device takes too.
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_TAKES_HOST_SCALAR = ("fill_", "index_fill_", "masked_fill", "masked_fill_", *_INDEXING[1:])

# What torch itself decomposes for all backends never reaches a fallback. These decompositions do
# not serve:
_DIRECT = (
    "convolution",  # ends in convolution_overrideable, which raises
    "convolution_backward",  # likewise
    "index.Tensor",  # copies host indices to the device without a word
    "native_layer_norm",  # a composition that rounds otherwise than the host's kernel
    "native_group_norm",  # likewise
    "silu_backward",  # likewise
)

# What torch.autocast runs in the lower precision and in float32: the core of its lists for CUDA.
_AUTOCAST = {
    True: "linear matmul mm mv addmm bmm baddbmm conv1d conv2d conv3d conv_transpose1d "
    "conv_transpose2d.input "
    "scaled_dot_product_attention prelu",
    False: "softmax.int log_softmax.int cross_entropy_loss nll_loss nll_loss_nd mse_loss l1_loss "
    "layer_norm "
    "group_norm binary_cross_entropy_with_logits exp log pow.Tensor_Scalar sum sum.dim_IntList "
    "cumsum norm.Scalar",
}


def install() -> None:
    """Registers the device; a second call changes nothing.

    Raises:
        RuntimeError: this process has an accelerator already.
    """
    if _libraries:
        return
    if torch.accelerator.is_available():
        raise RuntimeError(
            f"There is an accelerator already: {torch.accelerator.current_accelerator()}"
        )
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=_device_module())
    for_all, ops = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    _libraries.extend((for_all, ops))
    for_all.fallback(_run_on_host, "PrivateUse1")
    for_all.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in _DIRECT:
        ops.impl(name, functools.partial(_run_on_host, _overload(name)), "PrivateUse1")
    for name in ("_copy_from", "_copy_from_and_resize"):
        ops.impl(name, _copy_from, "PrivateUse1")
    ops.impl("_to_copy", _to_copy, "PrivateUse1")
    ops.impl("record_stream", lambda _tensor, _stream: None, "PrivateUse1")
    for lower, names in _AUTOCAST.items():
        for name in names.split():
            ops.impl(
                name, functools.partial(_autocast, _overload(name), lower), "AutocastPrivateUse1"
            )
    # Pinned memory is a mark on the host storage: the Python hooks cannot give an allocator for it.
    ops.impl("_pin_memory", _pin, "CPU")
    ops.impl(
        "is_pinned",
        lambda tensor, _device=None: hasattr(tensor.untyped_storage(), "_pinned"),
        "CPU",
    )

    _C._accelerator_synchronizeDevice = (
        _synchronize  # the Python device guard has no hook for it and raises
    )
    # torch holds host and PrivateUse1 tensors for incompatible, so Module.to would make new
    # parameters. On CUDA they stay the same objects, tied weights and an optimizer made before
    # .to() included: see _keep_parameters.
    torch.nn.Module._apply = _keep_parameters(torch.nn.Module._apply)
    # deepcopy of a tensor clones its storage, which would need a C++ allocator for the device (and
    # crashes).
    torch.UntypedStorage.clone = _cloning(torch.UntypedStorage.clone)


# ---- dressing and undressing


def _host_of(tensor: Tensor) -> Tensor:
    """The bytes of a standin tensor as a host tensor that aliases them."""
    host: Any = torch.empty(0, dtype=tensor.dtype)
    storage: Any = tensor.untyped_storage()
    return host.set_(storage._host, tensor.storage_offset(), tensor.size(), tensor.stride())


def _dressed(host: torch.UntypedStorage) -> Any:
    """A new standin storage over the bytes of a host storage."""
    device = torch.device(NAME, 0)
    storage = _C._construct_storage_from_data_pointer(host.data_ptr(), device, host.nbytes())
    storage._host = host
    return storage


def _point(tensor: Tensor, storage: Any, like: Tensor) -> Tensor:
    """Makes a standin tensor the view of ``storage`` that ``like`` is of its host bytes; below
    autograd."""
    set_ = torch.ops.aten.set_.source_Storage_storage_offset
    key = _C.DispatchKeySet(_C.DispatchKey.CPU)  # this kernel only writes metadata
    set_.redispatch(key, tensor, storage, like.storage_offset(), like.size(), like.stride())
    return tensor


class _Call:
    """One operator call: whose bytes the host tensors are, so that results alias what they
    should."""

    def __init__(self, op: Any) -> None:
        self.op = op
        self.storages: dict[int, Any] = {}
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.on_host: list[Tensor] = []

    def undress(self, value: Any) -> Any:
        """``value`` with host tensors (and the host device) in the places of standin ones."""
        if isinstance(value, Tensor) and value.device.type == NAME:
            host = _host_of(value)
            self.storages[host.untyped_storage()._cdata] = value.untyped_storage()
            self.pairs.append((value, host))
            return host
        if isinstance(value, Tensor):
            self.on_host.append(value)
        elif isinstance(value, (list, tuple)):
            return [self.undress(item) for item in value]
        elif isinstance(value, torch.device):
            return torch.device("cpu")
        elif isinstance(value, torch.UntypedStorage) and hasattr(value, "_host"):
            host = value._host  # pyright: ignore[reportAttributeAccessIssue]
            self.storages[host._cdata] = value
            return host
        return value

    def check(self) -> None:
        """Raises RuntimeError where a device would: a host operand that is not a scalar it can take
        along."""
        name = self.op._schema.name.removeprefix("aten::")
        takes_scalar = torch.Tag.pointwise in self.op.tags or name in _TAKES_HOST_SCALAR
        for tensor in self.on_host if self.pairs else ():
            if tensor.dim() > 0 or not takes_scalar:
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two "
                    "devices, "
                    f"{NAME}:0 and {tensor.device}! (operator {name}, host shape "
                    f"{tuple(tensor.shape)})"
                )

    def dress(self, value: Any) -> Any:
        """A result as a standin one: an argument itself, a view of one, or a new tensor."""
        if isinstance(value, Tensor):
            for mine, host in self.pairs:
                if value is host:
                    return mine
            inference = torch.is_inference_mode_enabled()
            for mine, host in self.pairs:
                # A view: an inference tensor if its base is.
                if host.untyped_storage() is value.untyped_storage():
                    inference = mine.is_inference()
            with torch.inference_mode(inference):
                new = _C._acc.create_empty_tensor((0,), value.dtype)
            return _point(new, self._storage(value), value)
        if isinstance(value, (list, tuple)):
            return type(value)(self.dress(item) for item in value)
        return value

    def follow(self) -> None:
        """Where the operator changed an argument's shape or storage (t_, out=, set_), so does its
        own tensor."""
        for mine, host in self.pairs:
            shapes = [(x.size(), x.stride(), x.storage_offset()) for x in (mine, host)]
            storage: Any = mine.untyped_storage()
            if shapes[0] != shapes[1] or storage._host is not host.untyped_storage():
                _point(mine, self._storage(host), host)

    def _storage(self, tensor: Tensor) -> Any:
        host = tensor.untyped_storage()
        storage = self.storages.get(host._cdata)
        if storage is None or storage.nbytes() != host.nbytes():  # new, or resized
            storage = self.storages[host._cdata] = _dressed(host)
        return storage


# ---- kernels


def _run_on_host(op: Any, *args: Any, **kwargs: Any) -> Any:
    call = _Call(op)
    args, kwargs = call.undress(args), {name: call.undress(value) for name, value in kwargs.items()}
    call.check()
    counters["reads"] += _waits(op, args)
    draws = torch.Tag.nondeterministic_seeded in op.tags and kwargs.get("generator") is None
    if draws and any(argument.name == "generator" for argument in op._schema.arguments):
        result = op(*args, **kwargs | {"generator": _generator})
    elif draws:  # from the default generator, whatever one asks for (native_dropout)
        before = torch.get_rng_state()
        torch.set_rng_state(_generator.get_state())
        try:
            result = op(*args, **kwargs)
        finally:
            _generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)
    else:
        result = op(*args, **kwargs)
    call.follow()
    return call.dress(result)


def _waits(op: Any, args: Any) -> bool:
    if op._schema.name.removeprefix("aten::") not in _INDEXING:
        return (
            torch.Tag.data_dependent_output in op.tags or torch.Tag.dynamic_output_shape in op.tags
        )
    if len(args) > 2 and args[2].dim() == 0:
        return False  # x[mask] = number is a masked_fill, on CUDA too
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    here, there = source.device.type == NAME, target.device.type == NAME
    if here != there:
        counters["device_to_host" if here else "host_to_device"] += 1
        counters["blocking_copies"] += not non_blocking
    (_host_of(target) if there else target).copy_(_host_of(source) if here else source)
    return target


def _to_copy(source: Tensor, *, device: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    # torch's own kernel takes pinned memory for a non-blocking copy to the host; there is no
    # allocator for it.
    layout = options.get("memory_format") or torch.preserve_format
    target = torch.empty_like(source, dtype=dtype, device=device, memory_format=layout)
    return target.copy_(source, non_blocking=options.get("non_blocking", False))


def _autocast(op: Any, lower: bool, *args: Any, **kwargs: Any) -> Any:
    dtype = torch.get_autocast_dtype(NAME) if lower else torch.float32

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.device.type == NAME and value.is_floating_point():
            return value if value.dtype == torch.float64 else value.to(dtype)
        return value

    with _C._ExcludeDispatchKeyGuard(_C.DispatchKeySet(_C.DispatchKey.AutocastPrivateUse1)):
        return op(*map(cast, args), **{name: cast(value) for name, value in kwargs.items()})


def _pin(tensor: Tensor, _device: Any = None) -> Tensor:
    pinned = tensor.clone()
    pinned.untyped_storage()._pinned = True  # pyright: ignore[reportAttributeAccessIssue]
    return pinned


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


# ---- patches and the device module


def _keep_parameters(apply: Callable[..., Any]) -> Callable[..., Any]:
    utils: Any = torch.utils

    def replace(
        old: Tensor, new: Tensor
    ) -> None:  # unlike swap_tensors, with weakrefs and live graphs too
        if torch._has_compatible_shallow_copy_type(old, new):  # pyright: ignore[reportPrivateImportUsage]
            old.data = new.data
        else:
            _C._swap_tensor_impl(old, new)
            for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                if getattr(old, hooks) is not None:
                    setattr(old, hooks, getattr(old, hooks))  # tells the new inside of them

    @functools.wraps(apply)
    def replacing(
        self: torch.nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> Any:
        swaps, swap = torch.__future__.get_swap_module_params_on_conversion(), utils.swap_tensors
        torch.__future__.set_swap_module_params_on_conversion(True)
        utils.swap_tensors = replace
        try:
            return apply(self, fn, recurse)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
            utils.swap_tensors = swap

    return replacing


def _cloning(clone: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(clone)
    def dressing(self: Any) -> Any:
        return _dressed(clone(self._host)) if hasattr(self, "_host") else clone(self)

    return dressing


def _synchronize(_device: Any = None) -> None:
    counters["synchronize"] += 1


def _device_module() -> types.ModuleType:
    """What ``torch.get_device_module("standin")`` gives, and ``torch.standin``."""
    functions: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _device: None,
        "get_device_name": lambda *_, **__: "stand-in accelerator",
        "synchronize": _synchronize,
        "manual_seed": _generator.manual_seed,
        "manual_seed_all": _generator.manual_seed,
        "get_rng_state": lambda *_, **__: _generator.get_state(),
        "set_rng_state": lambda state, *_, **__: _generator.set_state(state),
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
    }
    module = types.ModuleType(f"torch.{NAME}", "The stand-in accelerator.")
    vars(module).update(functions, counters=counters)
    return module
