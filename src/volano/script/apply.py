"""Applies a script's plan from outside: hooks on what every script calls, taken off again.

What the script does already (workers, autocast, compile, a chosen implementation of its optimizer)
is left. A plan that sets nothing installs nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from volano.device.fp32_products import fp32_products
from volano.device.memory.allocator import freed_memory_kept
from volano.device.transfer import copies_without_waiting
from volano.errors import PlanError
from volano.script.loaders import LoaderSettings, loaders_treated
from volano.script.model_calls import ModelSettings, model_calls_treated
from volano.script.optimizers import optimizers_fused
from volano.script.plan import ScriptPlan
from volano.thread_waits import SPIN_COUNT


class Applied:
    """A plan in this process, and what has become of it.

    Attributes:
        has_finished_step: whether an optimizer has made a step.
    """

    def __init__(self, plan: ScriptPlan) -> None:
        self.plan = plan
        self.has_finished_step = False
        self._deeds: dict[str, None] = {}
        self._left: dict[str, None] = {}

    def did(self, words: str) -> None:
        """Notes that something was done."""
        self._deeds[words] = None

    def left(self, words: str) -> None:
        """Notes that something was left as the script does it, and why."""
        self._left[words] = None

    @property
    def deeds(self) -> tuple[str, ...]:
        """The deeds: what was done to the script's objects, each once. A failure before the first
        is the script's own."""
        return tuple(self._deeds)

    @property
    def notices(self) -> tuple[str, ...]:
        """The notices: what was left as the script does it, and why."""
        return tuple(self._left)


@contextlib.contextmanager
def applied(plan: ScriptPlan) -> Iterator[Applied]:
    """Returns a context in which scripts run under a plan; afterwards hooks and settings are as
    before, and so are the loaders and optimizers that the plan has changed.

    Raises:
        PlanError: the plan cannot be applied from outside.
    """
    result = Applied(plan)
    if plan.is_empty:
        yield result
        return
    check_applicable(plan)
    with contextlib.ExitStack() as stack:
        _settings_of_process(plan, result, stack)
        loaders = LoaderSettings.of(plan)
        if loaders is not None:
            stack.enter_context(loaders_treated(loaders, result))
        models = ModelSettings.of(plan)
        if models is not None:
            stack.enter_context(model_calls_treated(models, result))
        if plan.fused:
            stack.enter_context(optimizers_fused(result))
        if plan.non_blocking:
            stack.enter_context(copies_without_waiting(result.did))
        _note_first_step(result, stack)
        yield result


def check_applicable(plan: ScriptPlan) -> None:
    """Raises PlanError if a plan cannot be applied from outside. Whether there is a device is
    asked, and nothing of it: it is the script that chooses and starts it."""
    if plan.precision == "fp16" and not torch.accelerator.is_available():
        raise PlanError(
            "fp16 needs an accelerator", got="precision='fp16' on a machine with a CPU alone",
            remedy="Take bf16",
        )  # fmt: skip


def _note_first_step(result: Applied, stack: contextlib.ExitStack) -> None:
    def finished(*_: Any) -> None:
        # Taken off with the context: within its own call torch walks over the hooks.
        result.has_finished_step = True

    stack.callback(register_optimizer_step_post_hook(finished).remove)


def _settings_of_process(plan: ScriptPlan, result: Applied, stack: contextlib.ExitStack) -> None:
    """Makes the settings that hold for a process. The script may make others later, which
    stand."""
    if plan.spin_count is not None and os.environ.get(SPIN_COUNT) != str(plan.spin_count):
        result.left(f"{SPIN_COUNT}: how long threads wait was said before torch was imported")
    if plan.threads is not None:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(plan.threads)
    if plan.allocator == "keep" and not stack.enter_context(freed_memory_kept()):
        result.left("allocator: the C library here has no such setting")
    if plan.precision == "tf32":
        stack.enter_context(fp32_products("tf32"))
    if plan.cudnn_benchmark is not None:
        backend = torch.backends.cudnn
        stack.callback(setattr, backend, "benchmark", backend.benchmark)
        backend.benchmark = plan.cudnn_benchmark
