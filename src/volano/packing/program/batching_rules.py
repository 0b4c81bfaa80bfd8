"""The rules by which layers are computed for K members at once.

``torch.vmap`` has a rule for most operators, but not the fastest one for these. A layer over an
input that all members share is one wide product, a layer over members' own inputs a batched
product; K convolutions are one grouped convolution, K normalizations one over K times the channels,
K attentions one over K times the batch. (The layouts of HFTA, Wang et al. 2021, arXiv:2102.02344,
as batching rules of operators instead of replaced modules.)

A rule gets its operands as they are: tensors, and the position of the members' dimension in each;
None means that all members share the tensor. It returns its result in the same form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from volano.device.torch_private import is_batchedtensor
from volano.packing.refusal import NotPackable

_Dims = tuple[int | None, ...]  # where the members' dimension of each operand is
_Ruled = tuple[Tensor, int]
_Rule = Callable[..., _Ruled]


def _by_rule(rule: _Rule, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns a function that computes as ``plain`` does, under ``vmap`` by ``rule(num_members,
    dims, *operands)``."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*_: Any) -> Any:
            raise AssertionError("only under vmap")

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG004 - torch's names
            raise AssertionError("only under vmap")

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> _Ruled:
            return rule(info.batch_size, in_dims, *operands)

    def function(*operands: Any) -> Tensor:
        if not any(isinstance(x, Tensor) and is_batchedtensor(x) for x in operands):
            return plain(*operands)
        return Function.apply(*operands)  # pyright: ignore[reportReturnType]

    return function


def _first(tensor: Tensor, dim: int | None, num: int) -> Tensor:
    """Returns the tensor as [K, ...]; a tensor that all members share is expanded without a
    copy."""
    return tensor.expand(num, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _second(tensor: Tensor, dim: int | None, num: int) -> Tensor:
    """Returns the tensor as [N, K, ...] in the same way."""
    if dim is None:
        return tensor.unsqueeze(1).expand(tensor.shape[0], num, *tensor.shape[1:])
    return tensor.movedim(dim, 1)


def _narrowed(tensor: Tensor) -> Tensor:
    """Casts to the autocast dtype; needed because a custom backward pass bypasses autocast."""
    kind = tensor.device.type
    if (
        not torch.is_autocast_enabled(kind)
        or not tensor.is_floating_point()
        or tensor.dtype == torch.float64
    ):
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


class _BatchedLinear(torch.autograd.Function):
    """A product ``x @ weight.T + bias`` for each of K members, with gradients laid out as the
    parameters are. Autograd's own gradient of a transposed operand is transposed, and would have to
    be copied."""

    @staticmethod
    def forward(ctx: Any, x_KRI: Tensor, weight_KOI: Tensor, bias_KO: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_KRI, weight_KOI)
        ctx.has_bias = bias_KO is not None
        transposed = weight_KOI.transpose(1, 2)
        if bias_KO is None:
            return torch.bmm(x_KRI, transposed)
        return torch.baddbmm(bias_KO.unsqueeze(1), x_KRI, transposed)

    @staticmethod
    def backward(ctx: Any, grad_KRO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_KRI, weight_KOI = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            torch.bmm(grad_KRO, weight_KOI) if of_x else None,
            torch.bmm(grad_KRO.transpose(1, 2), x_KRI) if of_weight else None,
            grad_KRO.sum(1) if of_bias and ctx.has_bias else None,
        )


class _WideLinear(torch.autograd.Function):
    """The same for one ``x`` [R, I] that all K members share: one product with all weights side by
    side."""

    @staticmethod
    def forward(ctx: Any, x_RI: Tensor, weight_KOI: Tensor, bias_KO: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_RI, weight_KOI)
        wide = x_RI @ weight_KOI.flatten(0, 1).t()
        y_RKO = wide.view(len(x_RI), *weight_KOI.shape[:2])
        return y_RKO if bias_KO is None else y_RKO + bias_KO

    @staticmethod
    def backward(ctx: Any, grad_RKO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_RI, weight_KOI = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        grad = grad_RKO.flatten(1, 2)
        return (
            grad @ weight_KOI.flatten(0, 1) if of_x else None,
            (grad.t() @ x_RI).view(weight_KOI.shape) if of_weight else None,
            grad_RKO.sum(0) if of_bias else None,
        )


def _linear(num: int, dims: _Dims, x: Tensor, weight: Tensor, bias: Tensor | None) -> _Ruled:
    x, weight, bias = _narrowed(x), _narrowed(weight), None if bias is None else _narrowed(bias)
    weight_KOI = _first(weight, dims[1], num)
    bias_KO = None if bias is None else _first(bias, dims[2], num)
    out, inside = weight_KOI.shape[1:]
    if dims[0] is None:
        y = _WideLinear.apply(x.reshape(-1, inside), weight_KOI, bias_KO)
        return y.view(*x.shape[:-1], num, out), x.dim() - 1  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    x_K = _first(x, dims[0], num)
    y = _BatchedLinear.apply(x_K.reshape(num, -1, inside), weight_KOI, bias_KO)
    return y.view(*x_K.shape[:-1], out), 0  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def _convolution(
    num: int, dims: _Dims, plain: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any
) -> _Ruled:
    stride, padding, dilation, groups = options
    weight_K = _first(weight, dims[2], num)
    wide = weight_K.reshape(num * weight_K.shape[1], *weight_K.shape[2:])
    bias_all = None if bias is None else _first(bias, dims[3], num).reshape(-1)
    if dims[1] is None and groups == 1:  # one wide convolution over the shared input
        y = plain(x, wide, bias_all, stride, padding, dilation, 1)
    else:
        x_NKC = _second(x, dims[1], num)
        x_all = x_NKC.reshape(x_NKC.shape[0], num * x_NKC.shape[2], *x_NKC.shape[3:])
        y = plain(x_all, wide, bias_all, stride, padding, dilation, num * groups)
    return y.view(y.shape[0], num, -1, *y.shape[2:]), 1


def _batch_norm(
    num: int, dims: _Dims, x: Tensor, mean: Any, var: Any, weight: Any, bias: Any, *options: Any
) -> _Ruled:
    x_NKC = _second(x, dims[0], num)
    merged = x_NKC.reshape(x_NKC.shape[0], num * x_NKC.shape[2], *x_NKC.shape[3:])

    def all_of(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        return None if tensor is None else _first(tensor, dim, num).reshape(-1)

    def view_of(tensor: Tensor | None, dim: int | None) -> Tensor | None:
        # Statistics are changed in place, so the argument must be a view.
        return None if tensor is None else _first(tensor, dim, num).view(-1)

    y = F.batch_norm(
        merged,
        view_of(mean, dims[1]),
        view_of(var, dims[2]),
        all_of(weight, dims[3]),
        all_of(bias, dims[4]),
        *options,
    )
    return y.view(x_NKC.shape), 1


def _layer_norm(
    num: int, dims: _Dims, x: Tensor, shape: Any, weight: Any, bias: Any, eps: float
) -> _Ruled:
    x_K = _first(x, dims[0], num)
    y = F.layer_norm(x_K, tuple(shape), None, None, eps)
    ones = [1] * (x_K.dim() - 1 - len(shape))
    if weight is not None:
        y = y * _first(weight, dims[2], num).reshape(num, *ones, *shape)
    if bias is not None:
        y = y + _first(bias, dims[3], num).reshape(num, *ones, *shape)
    return y, 0


def _embedding(num: int, dims: _Dims, ids: Tensor, weight: Tensor, padding: int | None) -> _Ruled:
    weight_KVD = _first(weight, dims[1], num)
    length = weight_KVD.shape[1]
    ids_K = _first(ids, dims[0], num)
    starts = torch.arange(num, device=ids.device).mul(length).view(num, *[1] * (ids_K.dim() - 1))
    # An id outside the table would be a row of another member's table. It is mapped to a row of no
    # member's, so that it is an error as in a training alone.
    rows = torch.where((ids_K >= 0) & (ids_K < length), ids_K + starts, num * length)
    y = F.embedding(rows, weight_KVD.reshape(num * length, -1))
    if padding is not None:  # the padding row of each member's table gets no gradient
        y = torch.where((ids_K == padding % length).unsqueeze(-1), y.detach(), y)
    return y, 0


def _attention(
    num: int, dims: _Dims, query: Tensor, key: Tensor, value: Tensor, mask: Any, *options: Any
) -> _Ruled:
    is_causal, scale, enable_gqa = options
    heads = [_first(x, dim, num) for x, dim in zip((query, key, value), dims[:3], strict=True)]
    flat = [x.reshape(num * x.shape[1], *x.shape[2:]) for x in heads]
    if mask is not None and (dims[3] is not None or mask.dim() > 2):
        mask_K = _first(mask, dims[3], num)
        lead = heads[0].shape[1 : heads[0].dim() - 2]
        mask_K = mask_K.reshape(num, *[1] * (len(lead) + 3 - mask_K.dim()), *mask_K.shape[1:])
        mask_K = mask_K.expand(num, lead[0], *mask_K.shape[2:])
        mask = mask_K.reshape(num * lead[0], *mask_K.shape[2:])
    y = F.scaled_dot_product_attention(
        flat[0], flat[1], flat[2], mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return y.view(num, -1, *y.shape[1:]), 0


linear = _by_rule(_linear, F.linear)
layer_norm = _by_rule(
    _layer_norm, lambda x, shape, w, b, eps: F.layer_norm(x, tuple(shape), w, b, eps)
)
batch_norm = _by_rule(_batch_norm, F.batch_norm)
embedding = _by_rule(_embedding, lambda ids, w, padding: F.embedding(ids, w, padding))
attention = _by_rule(
    _attention,
    lambda q, k, v, mask, causal, scale, gqa: F.scaled_dot_product_attention(
        q, k, v, mask, 0.0, causal, scale=scale, enable_gqa=gqa
    ),
)
_convolve = _by_rule(_convolution, lambda plain, *operands: plain(*operands))


def convolution(plain: Any, dims: int, x: Tensor, weight: Tensor, *options: Any) -> Tensor:
    """Returns the rule for ``plain``, torch's convolution over ``dims`` dimensions; ``options``:
    bias, stride, padding, dilation, groups."""
    if x.dim() != dims + 2:  # without a dimension of examples
        return plain(x, weight, *options)
    return _convolve(plain, x, weight, *options)


def cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int, reduction: str, smoothing: float | Tensor
) -> Tensor:
    """Computes ``F.cross_entropy`` with class indices and without class weights; the smoothing may
    differ between members.

    The class is picked by comparison, not by index, whose backward pass would scatter.
    """
    dim = 1 if logits.dim() > 1 else 0
    if target.is_floating_point():
        raise NotPackable(
            "cross_entropy with a label_smoothing that varies and probabilities as targets"
        )
    if torch.is_autocast_enabled(logits.device.type) and logits.dtype in (
        torch.bfloat16,
        torch.float16,
    ):
        logits = logits.float()  # as autocast does for this loss
    log_p = F.log_softmax(logits, dim)
    classes = torch.arange(logits.shape[dim], device=logits.device)
    classes = classes.view(*[-1 if d == dim else 1 for d in range(logits.dim())])
    counts = target != ignore_index
    picked = torch.where(classes == target.unsqueeze(dim), log_p, 0.0).sum(dim)
    is_class = (target >= 0) & (target < logits.shape[dim])  # alone, any other is an error
    loss = torch.where(counts, torch.where(is_class, -picked, float("nan")), 0.0)
    if isinstance(smoothing, Tensor) or smoothing > 0.0:
        spread = torch.where(counts, -log_p.sum(dim), 0.0)
        loss = (1.0 - smoothing) * loss + (smoothing / logits.shape[dim]) * spread
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / counts.sum()
