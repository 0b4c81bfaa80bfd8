"""The private names of torch, each under a public one: the only module that imports or reads them.

Read in torch 2.9, 2.13 and 2.14; tests/device/test_torch_private.py shows what each does, so that a
torch that changes one fails there. The compilers' parts are imported when they are needed: ``import
torch`` does not load them.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch import _amp_foreach_non_finite_check_and_unscale_ as check_and_unscale
from torch import _foreach_add_ as foreach_add_
from torch import _foreach_copy_ as foreach_copy_
from torch import _foreach_lerp as foreach_lerp
from torch import _foreach_lerp_ as foreach_lerp_
from torch import _foreach_mul_ as foreach_mul_
from torch import _foreach_norm as foreach_norm
from torch import _fused_adam_ as fused_adam_
from torch import _fused_adamw_ as fused_adamw_
from torch._C import DisableTorchFunctionSubclass
from torch._C import _current_autograd_node as current_autograd_node
from torch._C import _current_graph_task_id as current_graph_task_id
from torch._C._functorch import is_batchedtensor, peek_interpreter_stack
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.autograd import _get_sequence_nr as next_sequence_number
from torch.nn.modules.batchnorm import _BatchNorm as AnyBatchNorm
from torch.nn.modules.batchnorm import _NormBase as AnyTrackingNorm
from torch.nn.modules.conv import _ConvNd as AnyConvolution
from torch.nn.modules.dropout import _DropoutNd as AnyDropout
from torch.nn.modules.module import _has_any_global_hook as has_hooks_on_all_modules
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._python_dispatch import _disable_current_modes as without_dispatch_modes
from torch.utils._pytree import tree_flatten, tree_iter, tree_map_only, tree_unflatten
from torch.utils.data._utils.collate import collate as collate_by_type
from torch.utils.data._utils.collate import default_collate_fn_map

from volano.collector import collector_paused

# Hooks of torch.nn.Module that run with a forward or a backward pass.
_MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


# ---- tensors and modules


def version_of(tensor: Tensor) -> int:
    """Returns how often a tensor was written in place, views of it included."""
    return tensor._version


def base_of(tensor: Tensor) -> Tensor | None:
    """Returns the tensor that this one is a view of, or None."""
    return tensor._base


def storage_key(tensor: Tensor) -> int:
    """Returns the key that tells a tensor's storage from any other that lives; tensors without
    memory (fake ones) have one too."""
    return tensor.untyped_storage()._cdata


def sparse_indices_of(tensor: Tensor) -> Tensor:
    """Returns the indices of a sparse COO tensor as they are, coalesced or not."""
    return tensor._indices()


def sparse_values_of(tensor: Tensor) -> Tensor:
    """Returns the values of a sparse COO tensor as they are, coalesced or not."""
    return tensor._values()


def is_transformed() -> bool:
    """Returns whether code runs now inside of a transform of torch.func: ``grad``, ``vmap``."""
    return peek_interpreter_stack() is not None


def plain_functions() -> Any:
    """Returns a context in which subclasses of tensors are taken as the tensors that they are."""
    return DisableTorchFunctionSubclass()


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Returns the module's own parameters by name: the dict that holds them."""
    return module._parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Returns the module's own buffers by name: the dict that holds them."""
    return module._buffers


def has_hooks(held: nn.Module | Tensor) -> bool:
    """Returns whether hooks run with the forward or backward pass of a module, or hang on a
    parameter."""
    if isinstance(held, nn.Module):
        return any(getattr(held, kind, None) for kind in _MODULE_HOOKS)
    return bool(held._backward_hooks or getattr(held, "_post_accumulate_grad_hooks", None))


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Returns whether hooks run with the optimizer's step, its own or those of all optimizers."""
    own = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return any((*own, _global_optimizer_pre_hooks, _global_optimizer_post_hooks))


@contextlib.contextmanager
def step_hooks_suspended() -> Iterator[None]:
    """Returns a context in which the hooks of all optimizers do not run: for steps that only show
    what can be done."""
    kept: list[tuple[Any, dict[int, Any]]] = [
        (hooks, dict(hooks))
        for hooks in (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)
    ]
    for hooks, _ in kept:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, before in kept:
            hooks.update(before)


def mark_scaling_in_step(optimizer: torch.optim.Optimizer) -> None:
    """Tells a GradScaler that the optimizer's step looks at its scale and flag itself."""
    optimizer._step_supports_amp_scaling = True  # pyright: ignore[reportAttributeAccessIssue]


# ---- operations of the dispatcher and nodes of autograd


def schema_of(operation: OpOverload) -> Any:
    """Returns the operation's schema: its name, arguments, and whether it writes in place."""
    return operation._schema


def packet_of(operation: OpOverload) -> Any:
    """Returns the packet of an overload: ``aten.add`` for ``aten.add.Tensor``."""
    return operation._overloadpacket


def operation_name(operation: OpOverload) -> str:
    """Returns the name of an operation: ``"add"`` for ``aten.add.Tensor``."""
    return operation._opname


def sequence_number(node: Any) -> int:
    """Returns the place of an autograd node in the order in which nodes were made."""
    return node._sequence_nr()


# ---- memory of a device


def set_allocator(settings: str) -> bool:
    """Gives the allocator of torch's devices settings, as PYTORCH_ALLOC_CONF has them; some of
    those that are not named go back to their defaults. Returns False if this torch takes none once
    it is loaded."""
    setter = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if setter is None:
        return False
    setter(settings)
    return True


# ---- graphs of a device


def draws_within(graph: Any, generators: Iterable[torch.Generator]) -> None:
    """Tells a graph which generators are drawn from while it records, besides the device's default
    one. From torch 2.14 on a graph finds out by itself, and warns whoever tells it."""
    register = getattr(graph, "register_generator_state", None)
    if register is not None and _is_before("2.14"):
        for generator in generators:
            register(generator)


@contextlib.contextmanager
def undone_if_failed(
    graph: Any, device_index: int, pool: Any, generators: Iterable[torch.Generator]
) -> Iterator[None]:
    """Returns a context for a recording of CUDA's that may fail; nothing of it is left then.

    Before 2.14 torch itself leaves much (pytorch#180395, #190308): its allocator takes a recording
    to be under way for ever, and raises an assertion where memory is short; it keeps the memory of
    the pool; and generators refuse to draw (until 2.12).

    Args:
        graph: the graph, which records into ``pool``.
        device_index: number of its device.
        pool: the handle of a pool that no other graph has.
        generators: all generators that are drawn from inside.
    """
    states = [(generator, generator.clone_state()) for generator in generators]
    try:
        yield
    except BaseException:
        if not _has_recorded(graph):
            graph.reset()
            if _is_before("2.14"):
                for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
                    with contextlib.suppress(RuntimeError):  # done already, or not begun
                        getattr(torch._C, name)(device_index, pool)
                for generator, state in states:
                    generator.graphsafe_set_state(state)
        raise


def _is_before(version: str) -> bool:
    return torch.__version__ < version  # a TorchVersion: by its numbers


def _has_recorded(graph: Any) -> bool:
    """Returns whether a recording ended well, whatever was raised inside of it."""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


# ---- the processor


def has_bf16_units() -> bool:
    """Returns whether oneDNN finds units for bf16 in this processor; False for a build of torch
    without it."""
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


# ---- the compiler


def has_triton() -> bool:
    """Returns whether Triton is installed and compiles for a device of this machine."""
    from torch.utils._triton import has_triton as asked

    return bool(asked())


def load_dynamo() -> None:
    """Loads what torch's optimizers load when the first is made, compiled or not."""
    with collector_paused():
        import torch._dynamo


def load_compiler() -> None:
    """Loads the modules that compiling needs."""
    with collector_paused():
        import torch._dynamo
        import torch._inductor.lowering


def dynamo_settings() -> Any:
    """Returns Dynamo's settings; ``.patch(name=value)`` is a context with other values."""
    import torch._dynamo.config as settings

    return settings


@contextlib.contextmanager
def recompile_limits_heard(on_limit: Callable[[str], object]) -> Iterator[None]:
    """Returns a context in which a function hears of each code that has come to its limit of
    variants, by name and file: torch goes on uncompiled, and only logs that."""
    logger = logging.getLogger("torch._dynamo.convert_frame")

    def heard(record: logging.LogRecord) -> bool:
        facts = record.args if isinstance(record.args, tuple) else ()
        if len(facts) > 2 and str(facts[0]).endswith("recompile_limit"):
            on_limit(str(facts[2]))
        return True

    logger.addFilter(heard)
    try:
        yield
    finally:
        logger.removeFilter(heard)


def functorch_settings() -> Any:
    """Returns AOTAutograd's settings, as :func:`dynamo_settings`; ``activation_memory_budget`` is
    one."""
    import torch._functorch.config as settings

    return settings


def inductor_settings() -> Any:
    """Returns Inductor's settings, as :func:`dynamo_settings`; ``fallback_random`` is one."""
    import torch._inductor.config as settings

    return settings


def compile_with_inductor(
    graph: torch.fx.GraphModule, inputs: Any, settings: dict[str, Any] | None = None
) -> Any:
    """Compiles the graph that ``torch.compile`` hands to a backend, as its own backend does.

    ``settings`` of Inductor hold for the backward pass too, which is compiled later.
    """
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs, config_patches=settings)


def autotune_settings() -> dict[str, Any]:
    """Returns the settings of ``torch.compile``'s mode ``"max-autotune-no-cudagraphs"``."""
    import torch._inductor

    return dict(torch._inductor.list_mode_options("max-autotune-no-cudagraphs"))


def compile_graph(module: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    """Compiles a traced graph without autograd."""
    import torch._inductor

    return torch._inductor.compile(module, inputs)


def aot_backend(compiler: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a backend for ``torch.compile`` that gives the forward and the backward graph,
    divided and decomposed as for Inductor, to ``compiler``."""
    from functorch.compile import min_cut_rematerialization_partition
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    load_compiler()
    return aot_autograd(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition,
        decompositions=select_decomp_table(),
    )


def takes_boxed_values(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Marks a compiled graph that takes its inputs in a list, so that AOTAutograd hands over their
    last references."""
    function._boxed_call = True  # pyright: ignore[reportFunctionMemberAccess]
    return function


# ---- modules and loaders of other people's scripts


def is_compiled(module: nn.Module) -> bool:
    """Returns whether a module is what ``torch.compile`` returned, or ``module.compile()`` was
    called."""
    return hasattr(module, "_orig_mod") or module._compiled_call_impl is not None


def has_workers(loader: Any) -> bool:
    """Returns whether a loader keeps workers from one pass to the next, and has started them."""
    return loader._iterator is not None


def is_half_read(loader: Any) -> bool:
    """Returns whether somebody still holds the pass over a loader with persistent workers, and has
    not read it to its end."""
    iterator = loader._iterator
    # The loader, the name here and the argument of getrefcount.
    return sys.getrefcount(iterator) > 3 and iterator._tasks_outstanding > 0


def forget_workers(loader: Any) -> None:
    """Ends the workers that a loader keeps from one pass to the next."""
    loader._iterator = None
