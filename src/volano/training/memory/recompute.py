"""Recomputes the activations of a model's repeated blocks in the backward pass, instead of keeping
them.

Chen et al. 2016, "Training deep nets with sublinear memory cost": of each block only its input is
kept; the rest is computed again when the backward pass comes to it. The values are the same: random
numbers are drawn again from the same state, and buffers that a forward pass changes (BatchNorm's
statistics) are changed once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from volano.device import Device
from volano.device.torch_private import buffers_of, version_of, without_dispatch_modes
from volano.errors import PlanError
from volano.task import tensors_of

_LISTS = (nn.ModuleList, nn.ModuleDict)
# Buffers up to it are copied at each pass, which takes some microseconds.
_SMALL_BYTES = 65536
_CONTAINERS = (nn.Sequential, *_LISTS)


def blocks_of(model: nn.Module) -> list[str]:
    """Returns the names of the blocks that ``recompute="blocks"`` computes again, in the model's
    order; empty if there are none.

    A block is an entry of a list, dictionary or sequence of modules, is made of modules itself, and
    is not the only one of its class; of blocks within blocks the outermost counts. If no class
    repeats, the composite entries of a sequence are its stages.
    """
    places = _entries(model)
    entries = {name: module for name, module in model.named_modules() if name in places}
    composite = {name: module for name, module in entries.items() if _is_composite(module)}
    counts = Counter(type(module) for module in composite.values())
    repeated = [
        name
        for name, m in composite.items()
        if type(m) is not nn.Sequential and counts[type(m)] > 1
    ]
    # A sequence is only a way of grouping: it is a block if there is none inside of it.
    groups = [name for name, module in composite.items() if type(module) is nn.Sequential]
    stages = [name for name in groups if not any(_is_inside(other, name) for other in repeated)]
    blocks = repeated + (stages if len(stages) > 1 else [])
    if not blocks and len(composite) > 1:
        blocks = list(composite)
    return [
        name
        for name in entries
        if name in blocks and not any(_is_inside(name, other) for other in blocks)
    ]


def _entries(model: nn.Module) -> set[str]:
    return {
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, _CONTAINERS)
        for child, _ in module.named_children()
    }


def _is_composite(module: nn.Module) -> bool:
    # What is computed again has to be more than one layer: a layer's input is kept in any case.
    has_parts = any(True for _ in module.children()) and any(True for _ in module.parameters())
    return has_parts and not isinstance(module, (*_LISTS, torch.jit.ScriptModule))


def _is_inside(name: str, other: str) -> bool:
    return name.startswith(f"{other}.")


class Recompute:
    """Makes a model's blocks forget their activations, while :meth:`applied` holds; elsewhere it is
    as it was.

    Args:
        model: the user's. Neither its classes nor its state change.
        device: the device on which it computes.
    """

    def __init__(self, model: nn.Module, device: Device) -> None:
        modules = dict(model.named_modules())
        self.names = blocks_of(model)
        self._wrapped = [
            (modules[name], _RecomputedBlock(name, modules[name], device)) for name in self.names
        ]

    def applied(self) -> AbstractContextManager[None]:
        """Applies recomputation to the forward passes of training. The backward pass may come
        later."""
        for module, block in self._wrapped:
            # Compiled for the moment, or its own.
            block.forward = module.__dict__.get("forward") or block.of_class
        return forwards_replaced(self._wrapped)


@contextmanager
def forwards_replaced(replaced: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """A context in which modules have another forward pass: in the instance's own attributes, where
    it goes before the class's, and hooks stay outside of it."""
    before = [(module, module.__dict__.get("forward")) for module, _ in replaced]
    try:
        for module, forward in replaced:
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in before:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


class _RecomputedBlock:
    """The forward pass of a block, whose activations are not kept."""

    def __init__(self, name: str, module: nn.Module, device: Device) -> None:
        self._name, self._device = name, device
        self.of_class: Callable[..., Any] = module.forward
        self.forward = self.of_class
        self._modules = list(module.modules())
        # For each state of training and evaluation of the parts: which buffers a forward pass
        # changes in place.
        self._changing: dict[tuple[bool, ...], set[tuple[int, str]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        # The compiler sees what is drawn and changed, and does it once.
        if torch.compiler.is_compiling():
            return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)
        inputs = [(tensor, version_of(tensor)) for tensor in tensors_of((args, kwargs))]
        buffers = _Buffers(
            self._modules, self._changing.get(tuple(m.training for m in self._modules))
        )
        draws = _Draws(self._device)

        def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
            return contextlib.nullcontext(), _Both(draws.again, buffers.as_before)

        result = checkpoint(
            self.forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=contexts,
            **kwargs,
        )
        self._changing.setdefault(buffers.modes, set()).update(buffers.changed(self._name))
        draws.ended()
        if any(version_of(tensor) != version for tensor, version in inputs):
            raise PlanError(
                "A block that is computed again must leave its inputs unchanged",
                got=f"{self._name} ({type(self._modules[0]).__name__}), which changes one in place",
                remedy="Pin recompute='none', or make its first operation one that is not in place",
            )
        return result


class _Draws:
    """The state of random generators before a block's forward pass. All are noted at each pass, for
    a block may begin to draw later; put back are those alone that it has drawn from."""

    def __init__(self, device: Device) -> None:
        self._device, self._own = device, device.seeded_state()
        self._states: Any = device.generator_states()
        self._has_drawn = True

    def ended(self) -> None:
        """Ends the forward pass."""
        now = self._device.seeded_state()
        with without_dispatch_modes():  # a prediction of memory runs under fake tensors
            is_same = self._own is not None and now is not None and torch.equal(self._own, now)
        elsewhere = self._own is None or self._device.has_drawn_elsewhere(self._states)
        self._has_drawn = elsewhere or not is_same
        if not elsewhere:
            self._states = None

    def again(self) -> AbstractContextManager[None]:
        """Returns a context in which the generators that were drawn from stand as before."""
        if not self._has_drawn:
            return contextlib.nullcontext()
        if self._states is not None:
            return self._device.states_again(self._states)
        assert self._own is not None
        return self._device.seeded_state_again(self._own)


class _Buffers:
    """The buffers of a block before a forward pass: copies of those that it changes, the others as
    they are.

    ``changing``: places known to change, which are copied, and small ones too; None is not
    known yet, and all are copied.
    """

    def __init__(self, modules: list[nn.Module], changing: set[tuple[int, str]] | None) -> None:
        self.modes = tuple(module.training for module in modules)
        self._modules = modules
        self._before: dict[tuple[int, str], tuple[Tensor, int]] = {}
        self._copies: dict[tuple[int, str], Tensor] = {}
        self._is_first = changing is None
        for index, module in enumerate(modules):
            for name, buffer in buffers_of(module).items():
                if buffer is not None:
                    self._before[index, name] = buffer, version_of(buffer)
                    if (
                        changing is None
                        or (index, name) in changing
                        or buffer.nbytes <= _SMALL_BYTES
                    ):
                        self._copies[index, name] = buffer.clone()

    def changed(self, block: str) -> set[tuple[int, str]]:
        """Places that the forward pass has changed in place. To be asked right after it.

        Raises:
            PlanError: one that did not change before, so that what it was is lost.
        """
        places = {
            place
            for place, (buffer, version) in self._before.items()
            if version_of(buffer) != version
        }
        # batch normalisation writes its statistics without counting a version: look at values too
        if self._is_first:
            places |= {
                place
                for place, copy in self._copies.items()
                if _differs(copy, self._before[place][0])
            }
        lost = places - self._copies.keys()
        if lost:
            raise PlanError(
                "The large buffers that a recomputed block's forward pass changes must be the "
                "same at each step",
                got=f"{block}, which now changes {', '.join(sorted(name for _, name in lost))}",
                remedy="Pin recompute='none'",
            )
        if self._is_first:  # a small one may change at a later step, and behind its version
            self._copies = {
                place: copy
                for place, copy in self._copies.items()
                if place in places or copy.nbytes <= _SMALL_BYTES
            }
        return places

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Puts copies of what they were in their places, on which the forward pass may act once
        more."""
        now = {place: buffers_of(self._modules[place[0]]).get(place[1]) for place in self._before}
        try:
            for (index, name), (buffer, _) in self._before.items():
                copy = self._copies.get((index, name))
                buffers_of(self._modules[index])[name] = buffer if copy is None else copy.clone()
            yield
        finally:
            for (index, name), buffer in now.items():
                buffers_of(self._modules[index])[name] = buffer


def _differs(copy: Tensor, buffer: Tensor) -> bool:
    # Tensors of other types, like those without values by which memory is predicted, cannot be
    # compared.
    return type(buffer) is Tensor and not torch.equal(copy, buffer)


class _Both:
    """A pair of contexts, made again each time it is entered: a second backward pass computes a
    block once more."""

    def __init__(self, *makes: Callable[[], AbstractContextManager[Any]]) -> None:
        self._makes = makes
        self._entered: list[contextlib.ExitStack] = []

    def __enter__(self) -> None:
        stack = contextlib.ExitStack()
        for make in self._makes:
            stack.enter_context(make())
        self._entered.append(stack)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)
