"""The memory that kernels and allocators of the CPU take in addition to live tensors, which a
dispatch mode does not see.

The rules were found with torch's profiler, which records every allocation of a kernel, over
convolutions, recurrent layers and matrix products of many shapes (torch 2.13, oneDNN, AVX2 and
AVX-512). They describe oneDNN, which copies data in torch's own layout into blocks of channels and
back.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from volano.device.torch_private import packet_of, without_dispatch_modes

aten: Any = torch.ops.aten
# Memory that a process takes beyond its live bytes, by the plan's allocator: a share of them, and
# bytes. Measured as the least limit (RLIMIT_DATA) under which a case trains, less its peak
# (benchmarks/memory_fit.py --needs): at most 1.63 of the peak if glibc keeps a heap ("system",
# "keep": gaps between blocks), and at most these bytes if blocks are mapped one by one: code that
# oneDNN generates, its caches, and what torch allocates outside of tensors.
RESERVES = {"system": (1.75, 32 * 2**20), "return": (0.1, 32 * 2**20)}
# Channels that oneDNN's kernels keep together, by vector unit; a network's first layer is read
# without such blocks (is_1stconv).
_BLOCKS = {"AVX512": 16}
_FIRST_CHANNELS = (1, 2, 3)
# Buffers of matrix products in narrow types: a block of the right matrix, and the left matrix if it
# is stored transposed.
_PRODUCT_BLOCK, _PRODUCT_LEFT = 128 * 2**10, 1280 * 2**10
_NARROW = (torch.bfloat16, torch.float16)
# Workspace of recurrent kernels, in addition to their gates.
_RECURRENT_SCRATCH = 2**13
_MERGED_BELOW = 128
_KEPT_OF_LSTM = 6


def workspace_on_cpu(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """Returns the bytes that a kernel holds at its worst moment, in addition to its arguments and
    its result."""
    rule = _RULES.get(packet_of(func))
    return 0 if rule is None else max(0, int(rule(args, result)))


def with_workspace(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Returns the result of an operation on fake tensors, with the memory that a recurrent layer
    keeps for its backward pass, whose size only the real kernel knows."""
    if func is not aten.mkldnn_rnn_layer.default or not args[15]:
        return result
    inputs, weight, weight_of_hidden = args[:3]
    length, num_sequences, channels = inputs.shape
    of_one, of_two = _recurrent_memory(
        num_sequences,
        channels,
        weight.shape[0],
        args[10],
        args[9],
        bool(args[12]),
        weight_of_hidden.dtype,
    )
    size = of_one + (length - 1) * (of_two - of_one)  # affine in the number of steps
    return (*result[:3], torch.empty(size, dtype=torch.uint8))


def reserve_on_accelerator(func: Any, args: tuple[Any, ...], result: Any) -> int:
    """Returns the bytes that an accelerator's LSTM keeps of one layer and direction for the
    backward pass: a prior, not measured.

    It keeps the four gates, the cell and its tanh of each step and sequence, which the formulas of
    the gradient need (Hochreiter & Schmidhuber 1997); libraries do not document what they keep. GRU
    and RNN are captured cell by cell, with what the cells' own formulas keep.
    """
    if func is not aten.mkldnn_rnn_layer.default or not args[15]:
        return 0
    return _KEPT_OF_LSTM * result[0].nbytes


def reserve_on_cpu(peak: int, allocator: str) -> int:
    """Returns the bytes by which a process may grow beyond its live bytes.

    Args:
        peak: live bytes.
        allocator: the plan's allocator.
    """
    factor, fixed = RESERVES["return" if allocator == "return" else "system"]
    return int(factor * peak) + fixed


# ---- convolutions


def _blocked(tensor: Tensor) -> int:
    """Returns the bytes of a tensor [N, C, ...] with its channels in blocks."""
    block = _BLOCKS.get(torch.backends.cpu.get_cpu_capability(), 8)
    channels = tensor.shape[1]
    return tensor.nbytes // channels * (-(-channels // block) * block) if channels else 0


def _is_channels_last(tensor: Tensor) -> bool:
    if tensor.is_contiguous():
        return False
    last = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
    return tensor.ndim in (4, 5) and tensor.is_contiguous(memory_format=last)


def _convolution(args: tuple[Any, ...], result: Tensor) -> int:
    inputs, weight = args[:2]
    if _is_channels_last(inputs) or (inputs.is_contiguous() and _is_channels_last(weight)):
        return weight.nbytes
    output = _blocked(result)
    copied = 0 if inputs.shape[1] in _FIRST_CHANNELS else _blocked(inputs)
    # First all copies, before the result exists; then the result together with its blocked form.
    return max(output + copied + weight.nbytes - result.nbytes, output)


def _convolution_backward(args: tuple[Any, ...], _: Any) -> int:
    gradient, inputs, weight = args[:3]
    wide = 2 * weight.nbytes if weight.dtype in _NARROW else weight.nbytes
    if _is_channels_last(gradient) or _is_channels_last(inputs):
        return 2 * wide
    is_strided, needs_input = any(stride > 1 for stride in args[4]), args[-1][0]
    outputs = _blocked(gradient)
    copied = 0 if inputs.shape[1] in _FIRST_CHANNELS else _blocked(inputs)
    of_weight = outputs + copied + wide - weight.nbytes
    if not needs_input:
        return of_weight
    of_input = outputs + _blocked(inputs) - inputs.nbytes
    return max(of_weight, of_input, 2 * inputs.nbytes - weight.nbytes if is_strided else 0)


# ---- recurrent layers


@lru_cache(maxsize=64)
def _recurrent_memory(
    num_sequences: int,
    channels: int,
    num_gates: int,
    hidden: int,
    mode: int,
    has_biases: bool,
    dtype: torch.dtype,
) -> tuple[int, int]:
    """Returns the bytes that a layer keeps of sequences of one step, and of two, as the kernel
    itself reports them."""
    # Without gradients the kernel keeps nothing.
    with without_dispatch_modes(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        weights = [torch.zeros(num_gates, size, dtype=dtype) for size in (channels, hidden)]
        weights += [torch.zeros(num_gates, dtype=dtype)] * 2
        state = torch.zeros(num_sequences, hidden, dtype=dtype)
        sizes = [
            aten.mkldnn_rnn_layer(
                torch.zeros(length, num_sequences, channels, dtype=dtype), *weights, state, state,
                False, [], mode, hidden, 1, has_biases, False, False, True,
            )[3].nbytes
            for length in (1, 2)
        ]  # fmt: skip
    return sizes[0], sizes[1]


def _recurrent(args: tuple[Any, ...], _: Any) -> int:
    length, num_sequences, _ = args[0].shape
    # With few sequences the products with the inputs are made for all steps at once
    # (merge_gemm_layer).
    is_merged = num_sequences < _MERGED_BELOW and args[0].dtype not in _NARROW
    return args[1].nbytes + args[2].nbytes + _gates(args, length if is_merged else 1)


def _recurrent_backward(args: tuple[Any, ...], _: Any) -> int:
    length, num_sequences, _ = args[0].shape
    hidden = args[2].shape[1]
    weights = args[1].numel() + args[2].numel()
    if args[0].dtype in _NARROW:  # gradients are gathered in fp32
        return 4 * length * num_sequences * hidden + 6 * weights + _gates(args, 1)
    # The states' gradients were not requested and are zeros; the output's gradient is made
    # contiguous.
    return 4 * weights + _gates(args, length) + 4 * (length + 2) * num_sequences * hidden


def _gates(args: tuple[Any, ...], length: int) -> int:
    num_sequences, num_gates, hidden = args[0].shape[1], *args[2].shape
    # Get_good_ld: no rows at multiples of 4 KiB.
    row = num_gates + 16 if num_gates % 256 == 0 else num_gates
    return 4 * num_sequences * (length * row + 2 * hidden) + _RECURRENT_SCRATCH


# ---- products


def _product(left: Tensor, right: Tensor) -> int:
    if left.dtype not in _NARROW:
        return 0
    is_turned = left.ndim >= 2 and left.stride(-1) != 1
    return min(_PRODUCT_BLOCK, right.nbytes + 2**13) + (
        min(_PRODUCT_LEFT, left.nbytes) if is_turned else 0
    )


_RULES: dict[Any, Any] = {
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten.mkldnn_rnn_layer: _recurrent,
    aten.mkldnn_rnn_layer_backward: _recurrent_backward,
    aten.mm: lambda args, _: _product(args[0], args[1]),
    aten.addmm: lambda args, _: _product(args[1], args[2]),
    aten.bmm: lambda args, _: _product(args[0], args[1]),
    aten.baddbmm: lambda args, _: _product(args[1], args[2]),
}
