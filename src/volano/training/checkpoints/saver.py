"""Saves a run while the training loop runs: decides when a save is due, and writes in a thread.

What a checkpoint holds is copied to the host between two steps, so that it is of one moment; a
thread then writes the copy while training continues. One save is in flight at most. A run that is
killed loses the steps since the last save began that also ended: with one due every T seconds, and
a write that takes W, at most T + W.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from volano.device import Device, Ranks
from volano.errors import CheckpointError
from volano.record.run_folder import RunFolder
from volano.task import num_bytes
from volano.training.checkpoints.checkpoint import save_checkpoint
from volano.training.checkpoints.host_copy import HostCopies
from volano.training.checkpoints.shards import is_sharded
from volano.training.safety import Safety

# If seconds decide, saving takes at most this share of the training's time.
_SHARE = 0.02
# Of the host's free memory, what a copy of the state may take; beyond it the loop writes by itself.
_COPY_SHARE = 0.5


class Saver:
    """Saves at intervals, and never lets a save that fails end the run.

    Args:
        folder: the folder of the run.
        safety: the settings of when to save.
        make_state: the function that gives the step and all that a checkpoint holds; may raise to
            refuse a save.
        synchronize: the function that waits for the device, called before a save is timed: what is
            queued there is the training's time.
        on_notice: the function that hears of saves that failed.
        saved_step: step of the checkpoint from which the run is resumed, or None.
        ranks: all of which call every method alike; the first writes, or all their parts of a
            sharded state.
    """

    def __init__(
        self,
        folder: RunFolder,
        safety: Safety,
        make_state: Callable[[], dict[str, Any]],
        on_notice: Callable[[str], None],
        *,
        synchronize: Callable[[], None] = lambda: None,
        saved_step: int | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self._folder, self._safety = folder, safety
        self._make_state, self._on_notice = make_state, on_notice
        self._copies = HostCopies(on_notice)
        self._synchronize = synchronize
        self._interval = safety.save_seconds
        self._last = time.perf_counter()
        self._saved_step = saved_step
        self._write: _Write | None = None
        self._told_of_memory = self._is_failing = False

    def is_at(self, step: int) -> bool:
        """Returns whether ``step`` is a multiple of the steps between two saves; False if seconds
        count."""
        return self._safety.save_steps is not None and step % self._safety.save_steps == 0

    def is_late(self) -> bool:
        """Returns whether the seconds between two saves have passed; False if steps count. True
        once for each save, and on the first rank alone, which knows what saving costs. Also reports
        a save that has failed meanwhile."""
        if self._write is not None and not self._write.is_alive():
            self._settle()
        if self._interval is None or not self._ranks.is_first or self._write is not None:
            return False
        now = time.perf_counter()
        if now - self._last < self._interval:
            return False
        self._last = now
        return True

    def save(self) -> None:
        """Copies the state and has it written while the loop continues; waits for an earlier save
        that is still being written.

        Raises:
            NumericsError: from ``make_state``.
        """
        self._settle()
        self._synchronize()
        start = time.perf_counter()
        state = self._make_state()
        # Together: parts of one state are of one moment.
        is_shared = self._ranks.are_several and (not self._ranks.is_first or is_sharded(state))
        if is_shared or not self._has_room(state):
            if not is_shared and not self._told_of_memory:
                self._on_notice(
                    "the host's memory has no room for a copy of the state: each save holds the "
                    "loop up"
                )
                self._told_of_memory = True
            self._now(state, must=False)
            self._last = time.perf_counter()
            self._charge(self._last - start)
            return
        self._write = _Write(self._folder, self._copies.of(state))
        self._last = time.perf_counter()
        self._write.blocked_seconds = self._last - start
        self._write.start()

    def finish(self, *, must: bool) -> None:
        """The last save of a run, or of a part of it; returns when it is written.

        Raises:
            CheckpointError: it could not be written and ``must`` be, because the run stops here.
            NumericsError: from ``make_state``.
        """
        self._settle()
        state = self._make_state()
        if state["step"] != self._saved_step:
            self._now(state, must=must)

    def close(self) -> None:
        """Waits for a save in flight."""
        self._settle()

    def _now(self, state: dict[str, Any], *, must: bool) -> None:
        try:
            if self._ranks.is_first or is_sharded(state):
                _write(self._folder, state, self._ranks)
        except CheckpointError as error:
            if must:
                raise
            self._note(state["step"], error)
        else:
            self._note(state["step"], None)

    def _has_room(self, state: Any) -> bool:
        free = Device("cpu").free_bytes()
        needed = num_bytes(state) - self._copies.locked_bytes
        return free is None or needed <= _COPY_SHARE * free

    def _settle(self) -> None:
        write, self._write = self._write, None
        if write is None:
            return
        write.join()
        self._note(write.step, write.error)
        self._charge(write.blocked_seconds + write.processor_seconds)

    def _charge(self, seconds: float) -> None:
        if self._safety.save_seconds is not None:
            self._interval = max(self._safety.save_seconds, seconds / _SHARE)

    def _note(self, step: int, error: BaseException | None) -> None:
        # A disk may stay full for hours: it is reported when that begins and when it is over.
        if error is None:
            self._saved_step = step
            if self._is_failing:
                self._on_notice(f"saved again at step {step}")
        elif not self._is_failing:
            self._on_notice(f"not saved at step {step}: {error} The run continues and tries again.")
        self._is_failing = error is not None


class _Write(threading.Thread):
    """A checkpoint being written."""

    def __init__(self, folder: RunFolder, state: dict[str, Any]) -> None:
        super().__init__(name=f"volano-checkpoint-{state['step']}")
        self._folder, self._state = folder, state
        self.step: int = state["step"]
        self.error: BaseException | None = None
        self.blocked_seconds = self.processor_seconds = 0.0

    def run(self) -> None:
        """Writes; an error is kept for the loop to tell."""
        start = time.thread_time()
        try:
            _write(self._folder, self._state)
        except BaseException as error:  # noqa: BLE001 - a thread can raise to no caller; the loop reports it
            self.error = error
        self._state = {}
        self.processor_seconds = time.thread_time() - start


def _write(folder: RunFolder, state: dict[str, Any], ranks: Ranks | None = None) -> None:
    folder.sync_lines()  # a checkpoint must not be ahead of its figures
    save_checkpoint(folder.path / "checkpoints", state["step"], state, ranks=ranks)
