"""The events of a run, for observers.

on_phase(text)  on_explanation(explanation)  on_candidate(text)
on_start(info)
repeat:  on_log(record)  on_evaluation(record)  on_preview(record)  on_notice(text)
once at most:  on_length(num_steps)
on_end(status)
on_phase(text)
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volano.plan.explanation import Explanation


@dataclass(frozen=True, kw_only=True, slots=True)
class StartInfo:
    """The facts known before the first step."""

    name: str
    folder: str
    first_step: int
    num_steps: int
    steps_per_epoch: int
    batch_size: int
    device: str
    num_parameters: int


class Observer:
    """Hears of a run. Every method may be left as it is."""

    def on_phase(self, text: str) -> None:
        """A part of the work begins that is no step: reading, planning, testing."""

    def on_explanation(self, explanation: Explanation) -> None:
        """Hears what a search that no run waits for has predicted, before it runs a candidate."""

    def on_candidate(self, text: str) -> None:
        """A candidate of the race has been timed: its knobs, and what came of it."""

    def on_start(self, info: StartInfo) -> None:
        """Hears the start, before the first step."""

    def on_log(self, record: dict[str, Any]) -> None:
        """A line for ``metrics.jsonl``: means since the one before."""

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """A line for ``metrics.jsonl``: the validation set's loss and metrics."""

    def on_preview(self, record: dict[str, Any]) -> None:
        """A line for ``previews.jsonl``: what the task's ``preview`` gave after an evaluation."""

    def on_notice(self, text: str) -> None:
        """Hears something that a person should know: a step-down, a corrupt example, a late
        save."""

    def on_length(self, num_steps: int) -> None:
        """Hears that the run has another number of steps from here on."""

    def on_end(self, status: str) -> None:
        """Hears the end: ``"finished"``, ``"stopped"`` or ``"failed"``."""


class Observers(Observer):
    """Tells several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        for name in vars(Observer):
            if name.startswith("on_"):
                setattr(self, name, functools.partial(self._tell, name))

    def _tell(self, name: str, *about: Any) -> None:
        for observer in self._observers:
            getattr(observer, name)(*about)
