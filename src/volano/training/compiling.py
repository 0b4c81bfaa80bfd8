"""Compiled objectives, apart for each set of settings that the compiler reads and does not
guard."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

_Backend = Callable[..., Any]


class CompiledObjective:
    """An objective as ``torch.compile`` makes it, compiled anew where settings are others than they
    were.

    Code of one function is kept once for a process, and used again where its guards hold. The
    budget of activations and whose random numbers are drawn are no part of those guards, while code
    of another backend is never used: hence a backend for each pair of them.

    Args:
        objective: a task's.
    """

    def __init__(self, objective: Callable[..., Any]) -> None:
        self._objective = objective
        self._by_backend: dict[_Backend, Callable[..., Any]] = {}

    def __call__(self, *args: Any) -> Any:
        """The objective of a model and a batch, by the settings that hold now."""
        from torch._functorch import config as functorch
        from torch._inductor import config as inductor

        backend = _backend(functorch.activation_memory_budget, inductor.fallback_random)
        compiled = self._by_backend.get(backend)
        if compiled is None:
            compiled = self._by_backend[backend] = torch.compile(self._objective, backend=backend)
        return compiled(*args)


@functools.cache
def _backend(activation_budget: float, fallback_random: bool) -> _Backend:
    """Torch's own, under a name of its own."""

    def inductor(graph: Any, inputs: Any) -> Any:
        from torch._functorch import config as functorch
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx

        with (
            functorch.patch(activation_memory_budget=activation_budget),
            config.patch(fallback_random=fallback_random),
        ):
            return compile_fx(graph, inputs)

    return inductor
