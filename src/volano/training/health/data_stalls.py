"""Reports the time for which a training waits for its data, and what would shorten it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from volano.data import can_be_resident, rows_of
from volano.device import Device, num_cores
from volano.plan import Plan
from volano.record.format import ms_text
from volano.task import Task

# A share of the time below it, or so few seconds, is not worth a line; so much of it is reported
# while the run continues.
_LEAST_SHARE, _LEAST_SECONDS, _LARGE_SHARE = 0.05, 1.0, 0.2
# Lines in a row: a disk that is slow once is no finding.
_NUM_LINES = 3


class DataStalls:
    """Listens to the lines that a run logs, and tells of waiting: once if it lasts for some
    lines, and at the end.

    Args:
        task: whose data it waits for.
        plan: under which it is fed.
        device: the device that waits.
        first_step: the step from which the run continues.
        on_notice: the function that gets each notice.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        device: Device,
        first_step: int,
        on_notice: Callable[[str], None],
    ) -> None:
        self._task, self._plan, self._device, self._on_notice = task, plan, device, on_notice
        self._step = first_step
        self._seconds = self._waited = 0.0
        self._num_steps = self._num_large = 0
        self._is_first, self._was_told = True, False

    def look(self, record: dict[str, Any]) -> None:
        """Looks at the waits before a logged line. The first holds what is paid once (workers
        start) and is passed over."""
        steps, self._step = record["step"] - self._step, record["step"]
        if self._is_first or not record["examples_per_second"]:
            self._is_first = False
            return
        share = record["data_wait_share"]
        seconds = steps * self._task.batch_size / record["examples_per_second"]
        self._seconds += seconds
        self._waited += share * seconds
        self._num_steps += steps
        self._num_large = self._num_large + 1 if share >= _LARGE_SHARE else 0
        if self._num_large >= _NUM_LINES and not self._was_told and self._waited >= _LEAST_SECONDS:
            self._was_told = True
            self._tell("the device waits {share:.0%} of the time for data")

    def finish(self) -> None:
        """Reports the waits at the end of the run."""
        if self._waited >= max(_LEAST_SECONDS, _LEAST_SHARE * self._seconds):
            self._tell("the device waited {share:.0%} of the time for data")

    def _tell(self, text: str) -> None:
        between, waited = self._seconds / self._num_steps, self._waited / self._num_steps
        training = between - waited
        workers, cores = self._plan.workers, num_cores()
        made = (
            f"takes {ms_text(waited)} to make"
            if workers == 0
            else f"comes every {ms_text(between)}"
        )
        remedies = self._remedies(waited if workers == 0 else between * workers, training, cores)
        told = text.format(share=self._waited / self._seconds)
        self._on_notice(
            f"{told}: a batch {made} and takes {ms_text(training)} to train on; "
            f"{workers} worker{'' if workers == 1 else 's'} of {cores} "
            f"core{'' if cores == 1 else 's'}; "
            + (
                ", or ".join(remedies)
                or "no knob of the plan would change it: make fetching an example cheaper"
            )
        )

    def _remedies(self, making: float, training: float, cores: int) -> list[str]:
        """Returns what would shorten the wait; ``making`` and ``training`` are seconds of one
        process for a batch."""
        if self._plan.feed == "resident":
            return []  # what is waited for is the gathering itself
        remedies = []
        rows = rows_of(self._task.data)
        # A CPU that trains leaves workers a core less; for examples that lie in memory there is no
        # work.
        most = cores - 1 if self._device.is_cpu else cores
        wanted = min(most, max(self._plan.workers + 1, math.ceil(making / max(training, 1e-9))))
        if wanted > self._plan.workers and (rows is None or self._task.collate is not None):
            remedies.append(f"workers={wanted}")
        if can_be_resident(self._task.data, self._task.collate, self._device)[0]:
            remedies.append("feed=resident")
        return remedies
