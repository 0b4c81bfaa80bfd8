"""Predicts the memory of compiled steps: the graphs that torch's partitioner makes are run
operation by operation on fake tensors.

The partitioner decides what is kept for the backward pass and what is computed again; the real one
is asked. Fused values are never stored. So a step takes at least what is kept, and at most about
what it takes unfused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter

from volano.device.torch_private import (
    OpOverload,
    aot_backend,
    functorch_settings,
    takes_boxed_values,
)

# Fused kernels on the CPU took 0.63 to 1.12 of what the same graph takes unfused, over two
# transformers and six budgets of activations (torch 2.13, measured by the profiler).
ABOVE_UNFUSED = 1.12
# The same shares, if next to nothing is kept: see above.
ABOVE_KEPT = 1.15


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The bytes of a compiled step: not less than ``lower``, not more than ``upper``, most likely
    ``point``."""

    lower: int
    point: int
    upper: int


def interval(kept: int, unfused: int, activation_budget: float) -> Interval:
    """Returns the interval of bytes of a compiled step.

    Args:
        kept: bytes that live between forward and backward pass, or in the update if those are more.
        unfused: the peak if every operation stored its result.
        activation_budget: the plan's value; the more the partitioner recomputes, the more lives in
            addition to what is kept.
    """
    unfused = max(kept, unfused)
    point = kept if activation_budget >= 1.0 else (kept + unfused) // 2
    return Interval(
        lower=kept, point=point, upper=max(int(ABOVE_UNFUSED * unfused), int(ABOVE_KEPT * kept))
    )


class GraphCapture:
    """Compiles with everything but the last stage: graphs are run as they are, each value dropped
    after its last use.

    Attributes:
        has_randomness: whether a graph holds random operations, which a partitioner must not
            compute again (pytorch#190758).
    """

    def __init__(self) -> None:
        self.has_randomness = False

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``function`` as ``torch.compile`` would make it. Its first call compiles."""
        return torch.compile(function, backend=aot_backend(self._kept))

    def _kept(self, graph: GraphModule, _inputs: Any) -> Callable[[list[Any]], Any]:
        self.has_randomness |= any(_is_random(node.target) for node in graph.graph.nodes)

        def run(values: list[Any]) -> Any:
            return Interpreter(graph).boxed_run(values)

        return takes_boxed_values(run)


@contextlib.contextmanager
def activation_budget(share: float) -> Iterator[None]:
    """Returns a context in which the partitioner keeps this share of the activations."""
    with functorch_settings().patch(activation_memory_budget=share):
        yield


def _is_random(target: Any) -> bool:
    return isinstance(target, OpOverload) and torch.Tag.nondeterministic_seeded in target.tags
