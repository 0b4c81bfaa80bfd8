"""The mode in which a pack calls torch's functions: random draws are given, layers are computed by
the rules."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from volano.packing.program import batching_rules
from volano.packing.program.random_draws import Draw, noise_of
from volano.packing.refusal import NotPackable

_DROPOUTS = {F.dropout: None, F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}
_CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
_FACTORIES = {torch.rand, torch.randn, torch.randint, torch.randperm}
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
# Hooks on tensors that exist only while a program is made; they would not run later.
_HOOKS = (Tensor.register_hook, Tensor.register_post_accumulate_grad_hook)
# Python functions whose inner calls must be seen: the check for overrides at their head would hide
# these.
_OPENED = (F.multi_head_attention_forward, F.cross_entropy, F.gumbel_softmax)


class PackedFunctions(TorchFunctionMode):
    """A mode that takes draws from ``given`` and computes layers by the rules of packs.

    Args:
        given: for each draw in turn the argument of
            :func:`~volano.packing.program.random_draws.noise_of`; None records the draws of one
            member's forward pass in ``draws``.
        varying: the numbers that differ between members, by name, as the tensors that the model and
            objective hold.

    Attributes:
        draws: the draws in the order in which they were requested.
    """

    def __init__(
        self,
        given: Sequence[tuple[Tensor, ...]] | None = None,
        *,
        varying: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self._given = given
        self._seed = torch.initial_seed()
        self._names = {id(tensor): name for name, tensor in (varying or {}).items()}
        self.draws: list[Draw] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(_DROPOUTS[func], *args, **kwargs)
        if func is torch.dropout:
            return self._dropout(None, *args, **kwargs)
        if func in _FACTORIES or func in _LIKE:
            return self._made(func, *args, **kwargs)
        if func in _HOOKS:
            raise NotPackable("hooks on tensors of the forward pass")
        if func is F.cross_entropy:
            return self._cross_entropy(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func in _OPENED:
            with self:
                return _opened(func)(*args, **kwargs)
        if self._given is not None:
            func = _LAYERS.get(func, func)
        return func(*args, **kwargs)

    def _noted(self, draw: Draw) -> Tensor | None:
        """Returns what was drawn, or None while draws are recorded."""
        self.draws.append(draw)
        if self._given is None:
            if torch.initial_seed() != self._seed:  # alone, its draws would start from it
                raise NotPackable("random numbers after a seed of the task's own")
            return None
        return noise_of(self._given[len(self.draws) - 1])

    def _dropout(
        self, dims: int | None, input: Tensor, p: Any = 0.5, training: bool = True,
        inplace: bool = False,
    ) -> Tensor:  # fmt: skip
        if not training or (not isinstance(p, Tensor) and p == 0):
            return input
        shape = tuple(input.shape)
        if dims is not None:
            if input.dim() != dims + 2:
                raise NotPackable(f"dropout{dims}d of an input with {input.dim()} dimensions")
            shape = (*shape[:2], *[1] * dims)
        return self._dropped(input, p, shape, in_place=inplace)

    def _dropped(
        self, input: Tensor, p: Any, shape: tuple[int, ...], *, in_place: bool = False
    ) -> Tensor:
        drop = self._names.get(id(p)) if isinstance(p, Tensor) else float(p)
        if drop is None:
            raise NotPackable("dropout with a probability that is computed from what varies")
        noise = self._noted(
            Draw(
                shape=shape,
                dtype=input.dtype,
                strides=self._strides(input, shape),
                drop=drop,
                is_plain=not in_place and shape == tuple(input.shape),
            )
        )
        if noise is None:
            noise = torch.ones(shape, dtype=input.dtype, device=input.device)
        return input.mul_(noise) if in_place else input * noise

    def _strides(self, input: Tensor, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if self._given is not None or shape != tuple(input.shape):
            return None
        return torch.empty_like(input).stride()

    def _made(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("generator") is not None or kwargs.get("out") is not None:
            raise NotPackable(
                f"{func.__name__} with a generator of its own, or into a tensor that is there"
            )
        strides = None
        if func in _LIKE:
            like, *rest = args
            strides = self._strides(like, tuple(like.shape))
            kwargs = {"dtype": like.dtype, "device": like.device, **kwargs}
            func, args = _LIKE[func], (tuple(like.shape), *rest)
        kwargs = {
            name: value
            for name, value in kwargs.items()
            if name not in ("requires_grad", "memory_format")
        }
        shape = _shape_of_draw(func, args, kwargs)
        dtype = kwargs.get("dtype") or _type_of_draw(func)
        make = functools.partial(_draw, func, args, kwargs)
        if strides is not None:
            make = functools.partial(_draw_in_order, func, shape, strides, kwargs)
        noise = self._noted(Draw(shape=shape, dtype=dtype, make=make))
        return (
            torch.zeros(shape, dtype=dtype, device=kwargs.get("device")) if noise is None else noise
        )

    def _cross_entropy(
        self, input: Tensor, target: Tensor, weight: Any = None, size_average: Any = None,
        ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
        label_smoothing: Any = 0.0,
    ) -> Tensor:  # fmt: skip
        varies = isinstance(label_smoothing, Tensor)
        is_common = (
            weight is None
            and size_average is None
            and reduce is None
            and not target.is_floating_point()
        )
        if is_common and (varies or self._given is not None):
            return batching_rules.cross_entropy(
                input, target, ignore_index, reduction, label_smoothing
            )
        if varies:
            raise NotPackable(
                "cross_entropy with a label_smoothing that varies and class weights or "
                "probabilities"
            )
        with self:
            return _opened(F.cross_entropy)(
                input, target, weight, size_average, ignore_index, reduce, reduction,
                label_smoothing,
            )  # fmt: skip

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None,
        dropout_p: Any = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if isinstance(dropout_p, Tensor) or dropout_p > 0.0:
            return self._attention_with_dropout(
                query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa
            )
        if query.dim() < 3:  # without a dimension of examples
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        return batching_rules.attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)

    def _attention_with_dropout(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Any, drop: Any, is_causal: bool,
        scale: Any, gqa: bool,
    ) -> Tensor:  # fmt: skip
        # In its parts, as torch computes it if weights are dropped; the formula of its
        # documentation.
        if gqa:
            raise NotPackable("scaled_dot_product_attention with dropout and grouped queries")
        weights = (
            query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        )
        if is_causal:
            allowed = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
            weights = torch.where(allowed, weights, float("-inf"))
        if mask is not None:
            weights = (
                torch.where(mask, weights, float("-inf"))
                if mask.dtype == torch.bool
                else weights + mask
            )
        weights = torch.softmax(weights, -1)
        return self._dropped(weights, drop, tuple(weights.shape)) @ value


def _draw(func: Any, args: Any, kwargs: Any, generator: torch.Generator) -> Tensor:
    return func(*args, **kwargs, generator=generator)


def _draw_in_order(
    func: Any, shape: tuple[int, ...], strides: tuple[int, ...], kwargs: Any,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    empty = torch.empty_strided(shape, strides, **kwargs)
    draw = empty.uniform_ if func is torch.rand else empty.normal_
    return draw(generator=generator)


def _shape_of_draw(func: Any, args: Sequence[Any], kwargs: Any) -> tuple[int, ...]:
    if func is torch.randperm:
        return (int(kwargs.get("n", args[0] if args else 0)),)
    if "size" in kwargs:
        return tuple(kwargs["size"])
    if func is torch.randint:
        return tuple(args[-1])
    return tuple(args[0]) if len(args) == 1 and not isinstance(args[0], int) else tuple(args)


def _type_of_draw(func: Any) -> torch.dtype:
    return torch.int64 if func in (torch.randint, torch.randperm) else torch.get_default_dtype()


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return batching_rules.linear(input, weight, bias)


def _conv(
    plain: Any, dims: int, input: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1,
    padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    return batching_rules.convolution(
        plain, dims, input, weight, bias, stride, padding, dilation, groups
    )


def _batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return batching_rules.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    return batching_rules.layer_norm(input, list(normalized_shape), weight, bias, eps)


def _embedding(
    input: Tensor, weight: Tensor, padding_idx: Any = None, max_norm: Any = None,
    norm_type: float = 2.0,  # noqa: ARG001
    scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotPackable("embedding with max_norm, scale_grad_by_freq or sparse gradients")
    return batching_rules.embedding(input, weight, padding_idx)


_LAYERS: dict[Any, Callable[..., Tensor]] = {
    F.linear: _linear,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.embedding: _embedding,
    **{plain: functools.partial(_conv, plain, dims) for plain, dims in _CONVOLUTIONS.items()},
}


@functools.cache
def _opened(function: Any) -> Any:
    """Returns a Python function of torch.nn.functional without its check for overrides."""
    blind = dict.fromkeys(
        ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _no
    )
    return types.FunctionType(
        function.__code__, {**function.__globals__, **blind}, function.__name__,
        function.__defaults__, function.__closure__,
    )  # fmt: skip


def _no(*_: Any) -> bool:
    return False
