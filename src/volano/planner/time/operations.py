"""The description of an executed operation: floating-point operations, bytes, type, and what limits
it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from volano.device.torch_private import operation_name, packet_of, sparse_values_of, tree_iter
from volano.plan.prediction import Kind, Operation, PhaseName

aten: Any = torch.ops.aten
_DTYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
}
# Operations that touch no element, or only reserve memory.
_NO_WORK = {
    "detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty",
    "new_empty_strided", "_local_scalar_dense", "set_", "resize_", "is_same_size", "sym_size",
    "sym_stride", "sym_numel",
}  # fmt: skip
_NAMES: dict[Kind, str] = {
    "matmul": "mm addmm bmm baddbmm addbmm dot mv addmv _int_mm linear _scaled_mm",
    "convolution": "convolution convolution_backward _convolution convolution_overrideable "
    "cudnn_convolution "
    "mkldnn_convolution _slow_conv2d_forward _slow_conv2d_backward",
    "attention": "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
    "_scaled_dot_product_cudnn_attention _scaled_dot_product_flash_attention_for_cpu "
    "_flash_attention_forward _efficient_attention_forward",
    "recurrent": "mkldnn_rnn_layer _cudnn_rnn miopen_rnn _thnn_fused_lstm_cell "
    "_thnn_fused_gru_cell",
    "normalization": "native_batch_norm _native_batch_norm_legit _batch_norm_with_update "
    "native_layer_norm "
    "native_group_norm cudnn_batch_norm _fused_rms_norm",
    "reduction": "sum mean amax amin max min var var_mean std std_mean prod norm "
    "linalg_vector_norm argmax argmin "
    "cumsum logsumexp _softmax _log_softmax nll_loss_forward nll_loss2d_forward topk sort all any "
    "_foreach_norm",
}
_KINDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_OTHER = {
    "embedding", "embedding_dense_backward", "gather", "scatter", "scatter_add", "index",
    "index_put", "index_put_", "index_select", "_embedding_bag", "_index_put_impl_", "index_add",
    "unfold_backward", "slice_backward", "select_backward", "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward", "nonzero", "randint", "randperm",
}  # fmt: skip


def is_computation(func: Any) -> bool:
    """Checks whether an operation of torch's dispatcher does work: views and questions do none."""
    return (
        func.namespace not in ("prim", "profiler")
        and not func.is_view
        and operation_name(func) not in _NO_WORK
    )


def describe_operation(
    func: Any, args: Any, kwargs: Any, result: Any, phase: PhaseName
) -> Operation | None:
    """Describes one execution of an operation; returns None if it touches no tensor.

    Args:
        func: the operation as a dispatch mode is given it.
        args: positional arguments.
        kwargs: arguments by name.
        result: the result of the call.
        phase: the phase of the step.
    """
    inputs, outputs = list(_tensors((args, kwargs))), list(_tensors(result))
    num_bytes = sum(map(_bytes_touched, inputs)) + sum(map(_bytes_touched, outputs))
    if not num_bytes:
        return None
    return Operation(
        name=str(func),
        phase=phase,
        kind=_kind(operation_name(func)),
        dtype=_dtype(outputs, inputs),
        flops=_flops(func, args, kwargs, result),
        num_bytes=num_bytes,
    )


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (value for value in tree_iter(tree) if isinstance(value, Tensor))


def _bytes_touched(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return sparse_values_of(tensor).nbytes if tensor.layout is torch.sparse_coo else 0
    # An expanded tensor is read in place, so that its storage counts, not its shape.
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _dtype(outputs: list[Tensor], inputs: list[Tensor]) -> str:
    for tensor in (*outputs, *inputs):
        if tensor.dtype in _DTYPES:
            return _DTYPES[tensor.dtype]
    return "int"


def _kind(name: str) -> Kind:
    if name in _OTHER:
        return "other"
    forward = name.removesuffix("_data").removesuffix("_backward")
    return _KINDS.get(name) or _KINDS.get(forward) or "pointwise"


# ---- floating-point operations


def _flops(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    packet = packet_of(func)
    own = _OWN_FORMULAS.get(packet)
    if own is not None:
        return int(own(args))
    formula = flop_registry.get(packet)
    if formula is None:
        return 0
    return int(formula(*args, **kwargs, out_val=result))


def _attention_on_cpu(args: Any) -> int:
    query, key, value = args[:3]
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_on_cpu_backward(args: Any) -> int:
    gradient, query, key, value = args[:4]
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


def _recurrent_on_cpu(args: Any) -> int:
    """Describes one direction of one layer: at each place of the sequences, two matrices times a
    vector."""
    inputs, weight_of_input, weight_of_hidden = args[:3]
    places = math.prod(inputs.shape[:-1])
    return 2 * places * (weight_of_input.numel() + weight_of_hidden.numel())


# torch's counter does not know these operations and counts none (pytorch#195460); backward passes
# of products cost twice.
_OWN_FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_on_cpu,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_on_cpu_backward,
    aten.mkldnn_rnn_layer: _recurrent_on_cpu,
    aten.mkldnn_rnn_layer_backward: lambda args: 2 * _recurrent_on_cpu(args),
}
