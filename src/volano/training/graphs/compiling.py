"""The compiled objectives, one for each set of settings that the compiler reads and does not
guard."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from volano.device.torch_private import compile_with_inductor, functorch_settings, inductor_settings

_Backend = Callable[..., Any]


class CompiledObjective:
    """An objective as ``torch.compile`` makes it, compiled again if settings are others than they
    were.

    Code of one function is kept once for a process, and used again if its guards hold. The
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
        backend = _backend(
            functorch_settings().activation_memory_budget, inductor_settings().fallback_random
        )
        compiled = self._by_backend.get(backend)
        if compiled is None:
            compiled = self._by_backend[backend] = torch.compile(self._objective, backend=backend)
        return compiled(*args)


@functools.cache
def _backend(activation_budget: float, fallback_random: bool) -> _Backend:
    """Calls torch's own backend, under another name."""

    def inductor(graph: Any, inputs: Any) -> Any:
        with (
            functorch_settings().patch(activation_memory_budget=activation_budget),
            inductor_settings().patch(fallback_random=fallback_random),
        ):
            return compile_with_inductor(graph, inputs)

    return inductor
