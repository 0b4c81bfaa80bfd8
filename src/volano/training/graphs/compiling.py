"""The compiled functions, one for each set of settings that the compiler reads and does not
guard; and the repeated blocks of a model, whose code is compiled once for all of them."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from volano.device import Device
from volano.device.torch_private import (
    autotune_settings,
    compile_with_inductor,
    dynamo_settings,
    functorch_settings,
    inductor_settings,
    recompile_limits_heard,
)
from volano.plan import Plan
from volano.training.memory.recompute import blocks_of, forwards_replaced

_Backend = Callable[..., Any]
# The variants of one function for which code is kept: each type, format, size and rate of dropout
# of an objective is one, and each kind of block of a class. torch's own limit is 8.
_MOST_VARIANTS = 128


class CompiledFunction:
    """A function (a task's objective, a block's forward pass) as ``torch.compile`` makes it,
    compiled again if settings are others than they were.

    Code of one function is kept once for a process, and used again if its guards hold. The
    budget of activations and whose random numbers are drawn are no part of those guards, while code
    of another backend is never used: hence a backend for each pair of them.

    Args:
        autotunes: whether kernels for products are timed against each other, which takes minutes.
    """

    def __init__(self, function: Callable[..., Any], *, autotunes: bool = False) -> None:
        self._function, self._autotunes = function, autotunes
        self._by_backend: dict[_Backend, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result, by the settings that hold now."""
        backend = _backend(
            functorch_settings().activation_memory_budget,
            inductor_settings().fallback_random,
            self._autotunes,
        )
        compiled = self._by_backend.get(backend)
        if compiled is None:
            compiled = self._by_backend[backend] = torch.compile(self._function, backend=backend)
        return compiled(*args, **kwargs)


@functools.cache
def _backend(activation_budget: float, fallback_random: bool, autotunes: bool) -> _Backend:
    """Calls torch's own backend, under another name."""

    def inductor(graph: Any, inputs: Any) -> Any:
        settings = {
            "fallback_random": fallback_random,
            **(autotune_settings() if autotunes else {}),
        }
        with functorch_settings().patch(activation_memory_budget=activation_budget):
            return compile_with_inductor(graph, inputs, settings)

    return inductor


# ---- repeated blocks


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """Returns the model's blocks whose class repeats, in the model's order: the layers of a
    transformer, the blocks of a residual network."""
    modules = dict(model.named_modules())
    blocks = [modules[name] for name in blocks_of(model)]
    counts = Counter(map(type, blocks))
    # A sequence is a way of grouping: others of its class have nothing in common with it.
    return [m for m in blocks if counts[type(m)] > 1 and type(m) is not nn.Sequential]


def num_repeats(model: nn.Module) -> int:
    """Returns for how many repeated blocks one compilation serves, on average; 0 if none repeat."""
    blocks = repeated_blocks(model)
    return len(blocks) // len({_structure(block) for block in blocks}) if blocks else 0


def _structure(block: nn.Module) -> str:
    """Returns what the compiler looks at to find out whether code serves a block too."""
    parts = [f"{type(part).__qualname__} {part.extra_repr()}" for part in block.modules()]
    sizes = [f"{tuple(p.shape)} {p.dtype} {p.requires_grad}" for p in block.parameters()]
    return "\n".join(parts + sizes)


class CompiledBlocks:
    """Makes a model's repeated blocks compute by compiled code, while :meth:`applied` holds;
    elsewhere it is as it was.

    All blocks of a class share the code of its forward pass, with parameters as inputs of it: the
    first block is compiled, and the others find the code by its guards.

    Args:
        model: the user's. Neither its classes nor its state change.
    """

    def __init__(self, model: nn.Module) -> None:
        compiled: dict[Any, CompiledFunction] = {}
        self._blocks: list[tuple[nn.Module, Callable[..., Any]]] = []
        for block in repeated_blocks(model):
            if "forward" not in block.__dict__:  # else it is no method of its class
                forward: Any = type(block).forward
                function = compiled.setdefault(forward, CompiledFunction(forward))
                self._blocks.append((block, functools.partial(function, block)))

    @property
    def count(self) -> int:
        """The number of blocks."""
        return len(self._blocks)

    @contextlib.contextmanager
    def applied(self, within: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Applies the compiled code to forward passes, with the context ``within`` inside."""
        # In the instance's own attributes, where it goes before the class's forward; hooks, and
        # what computes a block again, stay outside of it.
        with forwards_replaced(self._blocks), within():
            yield


def compiled_blocks(model: nn.Module, plan: Plan) -> CompiledBlocks | None:
    """Returns a model's blocks if a plan compiles these, and there are any."""
    if not plan.compile or plan.compile_mode != "blocks":
        return None
    blocks = CompiledBlocks(model)
    return blocks if blocks.count else None


def why_not_as_said(model: nn.Module, plan: Plan, blocks: CompiledBlocks | None) -> str | None:
    """Returns what becomes of a ``compile_mode`` that does not apply; None if it does. ``blocks``
    are those of the model that the plan compiles."""
    if plan.compile_mode == "whole":
        return None
    if not plan.compile:
        return f"compile_mode={plan.compile_mode} has no effect without compile"
    if plan.compile_mode == "blocks" and blocks is None:
        return f"nothing is compiled: no blocks repeat in {type(model).__name__}"
    return None


@contextlib.contextmanager
def settings_of(
    plan: Plan, device: Device, on_limit: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Returns a context in which the plan's process-wide settings hold, the compiler's among them:
    alike for what is timed, checked and trained.

    If code has more variants than are kept, torch goes on uncompiled. ``on_limit`` then hears of it
    in words; without it that is an error, for what is timed or checked would not be what the plan
    says.
    """
    with device.settings(
        precision=plan.precision, threads=plan.threads, allocator=plan.allocator,
        conv_benchmark=plan.conv_benchmark, deterministic=plan.deterministic,
    ):  # fmt: skip
        if not plan.compile:
            yield
            return
        limit = max(_MOST_VARIANTS, dynamo_settings().recompile_limit)  # a person's may be larger
        limits = {"recompile_limit": limit, "fail_on_recompile_limit_hit": on_limit is None}
        heard = contextlib.nullcontext()
        if on_limit is not None:
            said = f" has more than {limit} variants, for which compiled code is kept: others run"
            heard = recompile_limits_heard(lambda name: on_limit(f"{name}{said} uncompiled"))
        with dynamo_settings().patch(**limits), heard:
            yield


def compiled_objective(objective: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """Returns a task's objective as a plan's steps call it."""
    if not plan.compile or plan.compile_mode == "blocks":
        return objective
    return CompiledFunction(objective, autotunes=plan.compile_mode == "max-autotune")
