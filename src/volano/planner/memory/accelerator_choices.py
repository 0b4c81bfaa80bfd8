"""The choices of an accelerator, made for fake tensors of the host: which attention kernel, which
dropout, which types.

Fake tensors of an absent device end the process as soon as autograd asks for that device's library.
So the step is captured on fake tensors of the host, and this module does what the accelerator would
do differently. The backward pass then keeps the same tensors. Sources: torch's documentation of
autocast (the lists of operations per device), its ``sdp_utils`` (the order in which attention
kernels are tried) and ``Dropout.cpp`` (the mask is bytes of bool).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

aten: Any = torch.ops.aten

# Operations that autocast computes in fp32 on accelerators but not on the host, each with its
# function of torch.nn.functional. Loss functions cast within themselves, on the way to log_softmax
# and its like.
_IN_FP32: set[Callable[..., Any]] = {
    F.layer_norm, F.group_norm, F.softmax, F.log_softmax, F.softmin, F.cross_entropy, F.nll_loss,
    F.kl_div, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.mse_loss, F.cosine_embedding_loss,
    F.cosine_similarity, F.softplus, F.binary_cross_entropy_with_logits, F.local_response_norm,
    F.normalize, F.pdist, torch.softmax, torch.log_softmax, torch.layer_norm, torch.group_norm,
    torch.exp, torch.expm1, torch.log, torch.log10, torch.log1p, torch.log2, torch.pow,
    torch.rsqrt, torch.reciprocal, torch.acos, torch.asin, torch.cosh, torch.erfinv, torch.sinh,
    torch.tan, torch.sum, torch.prod, torch.cumsum, torch.cumprod, torch.norm, torch.cdist,
    torch.renorm, torch.logsumexp, Tensor.softmax, Tensor.log_softmax, Tensor.exp, Tensor.expm1,
    Tensor.log, Tensor.log1p, Tensor.log2, Tensor.log10, Tensor.pow, Tensor.__pow__, Tensor.rsqrt,
    Tensor.reciprocal, Tensor.sum, Tensor.prod, Tensor.cumsum, Tensor.cumprod, Tensor.norm,
    Tensor.logsumexp,
}  # fmt: skip
# Python functions whose inner calls must be seen: the check for overrides at their head would hide
# these.
_OPENED = (F.multi_head_attention_forward, F.gumbel_softmax)
_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_NARROW = (torch.bfloat16, torch.float16)


class AcceleratorChoices(TorchFunctionMode):
    """A context in which torch's functions on the host's tensors do what they would do on an
    accelerator."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is F.dropout and not kwargs.get("inplace") and len(args) < 4:
            return _dropout(*args, **kwargs)
        if func in _OPENED:
            with self:  # the mode is off while its own rules run
                return _opened(func)(*args, **kwargs)
        if func in _IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = tuple(_widened(value) for value in args)
            kwargs = {name: _widened(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)


@functools.cache
def _opened(function: Any) -> Any:
    """Returns a Python function of torch.nn.functional without its check for overrides."""
    names = {**function.__globals__, **dict.fromkeys(_CHECKS, lambda *_: False)}
    return types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _NARROW else value


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, **_: Any) -> Tensor:
    if not training or p == 0.0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes attention as an accelerator would: flash attention for narrow types without a mask
    (Dao et al. 2022), memory-efficient attention for the rest."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (tensor.repeat_interleave(groups, -3) for tensor in (key, value))
    if query.ndim != 4:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale
        )
    if attn_mask is None and query.dtype in _NARROW:
        return aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, float("-inf"))
    if bias is not None:
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    is_kept = any(tensor.requires_grad for tensor in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, is_kept, dropout_p, is_causal, scale=scale
    )[0]
