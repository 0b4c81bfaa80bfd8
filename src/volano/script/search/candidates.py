"""The plans that are tried for a script: those that can shorten a part of its step that is long
enough to matter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from volano.device.memory.allocator import can_keep_freed_memory
from volano.script.plan import ScriptPlan
from volano.script.search.explanation import ScriptExplanation

# A part of a smaller share of a step is not worth a run.
_LEAST_SHARE = 0.03
# Compiling takes tens of seconds on a CPU, and each candidate is a process of its own.
_COMPILE_SECONDS = 150.0
_MOST_WORKERS = 8


class PlanToTry(NamedTuple):
    """A plan to try, and the share of a step that it could save at most."""

    plan: ScriptPlan
    share: float


class PlansToTry(NamedTuple):
    """The plans to try, the most promising first, and what is not tried, with the reason."""

    tried: tuple[PlanToTry, ...]
    refused: tuple[tuple[str, str], ...]


def candidates_for(
    explanation: ScriptExplanation, precisions: Sequence[str], seconds: float
) -> PlansToTry:
    """Returns the candidates for a script.

    Args:
        explanation: where its time goes, and what it does by itself.
        precisions: types in which its device computes faster than in fp32.
        seconds: how long everything may take.
    """
    share = {part.name: part.share for part in explanation.parts}
    compute = share.get("forward", 0.0) + share.get("backward", 0.0)
    facts = explanation.facts
    waits = share.get("data", 0.0) + share.get("transfer", 0.0)
    found = [
        *_for_allocators(explanation),
        *_for_loaders(facts, waits, explanation.device),
        *_for_models(facts, compute, precisions, explanation.device),
        *_for_compilers(facts, compute, seconds),
        *_for_optimizers(facts, share.get("optimizer", 0.0)),
    ]
    tried = [item for item in found if isinstance(item, PlanToTry)]
    refused = [item for item in found if not isinstance(item, PlanToTry)]
    tried.sort(key=lambda candidate: -candidate.share)
    return PlansToTry(tuple(tried), tuple(refused))


_Found = Iterator[PlanToTry | tuple[str, str]]


def _for_allocators(explanation: ScriptExplanation) -> _Found:
    """Yields memory that is kept if the kernel takes part in the steps: it clears each page again
    that was given back."""
    share = explanation.kernel_cores or 0.0
    if explanation.device != "cpu":
        return
    if share < _LEAST_SHARE:
        yield "allocator", f"the kernel takes part in {share:.1%} of a step"
    elif can_keep_freed_memory():
        yield PlanToTry(ScriptPlan(allocator="keep"), share)


def _for_loaders(facts: Mapping[str, Any], share: float, device: str) -> _Found:
    loaders = facts.get("loaders", ())
    if not loaders:
        yield "data workers", "the script reads no DataLoader while it trains"
    elif all(loader.get("is_stream") for loader in loaders):
        yield "data workers", "several would each give all of what can only be iterated over"
    elif any(loader.get("counts_reads") for loader in loaders):
        yield "data workers", "the dataset changes itself when it is read, each worker its own copy"
    elif share < _LEAST_SHARE:
        yield "data workers", f"waiting for data and copying are {share:.1%} of a step"
    elif all(loader["num_workers"] for loader in loaders):
        if all(loader["prefetch_factor"] in (None, 1, 2) for loader in loaders):
            yield PlanToTry(ScriptPlan(prefetch_factor=4), share / 2)
        yield "data workers", "the script has its own"
    else:
        # One worker hides at most as much time as the rest of a step takes.
        counts = {min(_MOST_WORKERS, _cores()), max(1, _cores() // 2)}
        for num_workers in sorted(counts, reverse=share > 0.5):
            threads, own = None, facts.get("threads") or _cores()
            if device == "cpu" and num_workers < _cores() < own + num_workers:
                threads = _cores() - num_workers  # arithmetic leaves cores to the workers
            plan = ScriptPlan(num_workers=num_workers, persistent_workers=True, threads=threads)
            yield PlanToTry(plan, share)
    if loaders and device != "cpu" and share >= _LEAST_SHARE:
        if any(loader["pin_memory"] for loader in loaders):
            yield PlanToTry(ScriptPlan(non_blocking=True), share / 2)
        else:
            yield PlanToTry(ScriptPlan(pin_memory=True, non_blocking=True), share)


def _for_models(
    facts: Mapping[str, Any], share: float, precisions: Sequence[str], device: str
) -> _Found:
    if share < _LEAST_SHARE:
        yield "precision, memory format", f"forward and backward are {share:.1%} of a step"
        return
    if not facts.get("is_training", True):
        yield "precision, memory format", "the model is trained in evaluation mode, and is left"
        return
    own = facts.get("autocast") or (facts.get("dtype") != "float32" and facts.get("dtype"))
    if own:
        yield "precision", f"the script computes in {own}"
    elif not precisions:
        yield "precision", "this device has no units for a narrower type"
    else:
        for precision in precisions:
            yield PlanToTry(ScriptPlan(precision=precision), share / 2)  # pyright: ignore[reportArgumentType]
    if not facts.get("has_convolutions"):
        yield "channels_last", "the model has no convolution of images"
    elif facts.get("is_channels_last"):
        yield "channels_last", "the script has it"
    else:
        yield PlanToTry(ScriptPlan(memory_format="channels_last"), share / 3)
        if device != "cpu":
            yield PlanToTry(ScriptPlan(cudnn_benchmark=True), share / 4)


def _for_compilers(facts: Mapping[str, Any], share: float, seconds: float) -> _Found:
    if facts.get("is_compiled"):
        yield "torch.compile", "the script compiles"
    elif not facts.get("is_training", True):
        yield "torch.compile", "the model is trained in evaluation mode, and is left"
    elif seconds < _COMPILE_SECONDS:
        yield "torch.compile", f"takes long to try: give `seconds` {_COMPILE_SECONDS:.0f} or more"
    elif share >= _LEAST_SHARE:
        yield PlanToTry(ScriptPlan(compile="default"), share / 3)


def _for_optimizers(facts: Mapping[str, Any], share: float) -> _Found:
    optimizers = facts.get("optimizers", ())
    if share < _LEAST_SHARE:
        yield "fused optimizer", f"the optimizer is {share:.1%} of a step"
    elif any(about["takes_fused"] and not about["fused"] for about in optimizers):
        yield PlanToTry(ScriptPlan(fused=True), share)
    else:
        yield "fused optimizer", "the script has it, or an optimizer without it"


def other_threads(facts: Mapping[str, Any]) -> int:
    """Returns another number of threads than the script's: computed with them, its numbers differ
    by rounding alone."""
    threads = facts.get("threads") or 1
    return max(2, _cores()) if threads == 1 else max(1, threads // 2)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
