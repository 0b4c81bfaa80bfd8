"""The arithmetic of objectives written for fp32, done in float64 with the very draws that fp32
would see."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from volano.device.torch_private import TorchDispatchMode, schema_of, tree_map_only
from volano.planner.parity.attention_parts import attention_by_parts

_NARROW = (torch.float32, torch.bfloat16, torch.float16)
# Arguments that say how much is dropped: attention kernels are marked as random, but draw nothing
# if this is 0.
_RATES = ("dropout_p", "dropout", "p")


class SameDraws(TorchDispatchMode):
    """A mode in which random numbers are drawn in fp32 whatever the type of the tensor that takes
    them, and counted.

    Generators give different numbers in different types, but two passes from one seed must draw
    alike to be compared.

    Args:
        plain_attention: whether attention is made of torch's own operations: its fused kernels drop
            scores within themselves, each in a way of its own, and take the types only that they
            are for.

    Attributes:
        num_draws: random operations so far.
        drops_in_kernels: whether a fused kernel of attention was among them.
    """

    def __init__(self, *, plain_attention: bool = False) -> None:
        super().__init__()
        self.num_draws, self.drops_in_kernels = 0, False
        self._plain_attention = plain_attention
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Any:
        if self._plain_attention:
            self._entered.enter_context(sdpa_kernel(SDPBackend.MATH))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handles an operation; see torch's TorchDispatchMode."""
        kwargs = kwargs or {}
        if not is_draw(func, args, kwargs):
            return self.compute(func, args, kwargs)
        self.num_draws += 1
        return self.draw(func, args, kwargs)

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Computes an operation that draws nothing."""
        return func(*args, **kwargs)

    def draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Draws the numbers of an operation in fp32, and gives them in the type that was asked
        for."""
        schema = schema_of(func)
        name, first = schema.name, args[0] if args and isinstance(args[0], Tensor) else None
        if name == "aten::native_dropout":
            assert first is not None
            return self._drop(first, args[1])
        if "_attention" in name:
            self.drops_in_kernels = True
            return func(*args, **kwargs)
        if schema.is_mutable:
            if first is None or not first.is_floating_point():
                return func(*args, **kwargs)
            drawn = torch.empty_like(first, dtype=torch.float32)
            func(drawn, *args[1:], **kwargs)
            first.copy_(self.noted(drawn))
            return first
        wanted = kwargs.get("dtype") or (
            first.dtype if first is not None else torch.get_default_dtype()
        )
        if not wanted.is_floating_point:
            return self.noted(func(*args, **kwargs))
        if "dtype" in kwargs or name.endswith("_like"):
            kwargs = {**kwargs, "dtype": torch.float32}
        arguments = tree_map_only(Tensor, lambda t: t.float() if t.is_floating_point() else t, args)
        return tree_map_only(
            Tensor, lambda t: t.to(self.wanted(wanted)) if t.is_floating_point() else t,
            self.noted(func(*arguments, **kwargs)),
        )  # fmt: skip

    def wanted(self, dtype: torch.dtype) -> torch.dtype:
        """Returns the type in which drawn numbers are given if ``dtype`` was asked for."""
        return dtype

    def noted(self, drawn: Any) -> Any:
        """Returns the drawn numbers; a place to keep or to replace them."""
        return drawn

    def _drop(self, values: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        kept = torch.empty_like(values, dtype=torch.float32).bernoulli_(1.0 - rate)
        kept = self.noted(kept).bool()
        return values * kept / (1.0 - rate) if rate < 1 else values * 0, kept


class Float64(SameDraws):
    """A mode that computes everything inside it in float64, explicit casts to narrower types
    included.

    Tensors in fp32 that lie there already (a constant of the objective) are widened when they are
    used; one that is written in place keeps its type.
    """

    def __enter__(self) -> Any:
        self._entered.enter_context(attention_by_parts())
        return super().__enter__()

    def compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        schema = schema_of(func)
        if schema.is_mutable:
            written = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
            arguments = [
                value if w else _wide(value) for value, w in zip(args, written, strict=False)
            ]
            return func(*arguments, **{k: v if k == "out" else _wide(v) for k, v in kwargs.items()})
        kwargs = {name: _wide_type(value) for name, value in _wide(kwargs).items()}
        arguments = [_wide_type(value) for value in _wide(list(args))]
        # Half_to_float is only for half precision.
        if schema.name in ("aten::_softmax", "aten::_log_softmax"):
            arguments[2] = False
        return _wide(func(*arguments, **kwargs))

    def wanted(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float64 if dtype in _NARROW else dtype

    def draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        kwargs = {**kwargs, "dtype": torch.float32} if kwargs.get("dtype") in _NARROW else kwargs
        return super().draw(func, args, kwargs)


def is_draw(func: Any, args: Any, kwargs: Any) -> bool:
    """Checks whether an operation of torch's dispatcher draws random numbers with these
    arguments."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    schema = schema_of(func)
    for position, argument in enumerate(schema.arguments):
        value = (
            args[position]
            if position < len(args)
            else kwargs.get(argument.name, argument.default_value)
        )
        if argument.name in _RATES and value == 0.0 and "bernoulli" not in schema.name:
            return False
        if argument.name == "train" and value is False:
            return False
    return True


def _wide(tree: Any) -> Any:
    return tree_map_only(Tensor, lambda t: t.double() if t.dtype in _NARROW else t, tree)


def _wide_type(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _NARROW else value
