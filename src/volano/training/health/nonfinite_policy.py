"""The policy for a step whose numbers are not finite: it is examined and recorded, and the run
stops or continues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from volano.errors import NumericsError
from volano.record.run_folder import RunFolder
from volano.training.checkpoints.checkpoint import list_checkpoints
from volano.training.health.nonfinite_origin import Diagnosis, diagnose
from volano.training.observe import Observer
from volano.training.session import Session


class NumericsPolicy:
    """Stops a run at its first bad step, or leaves out as many as it may. Its count is part of a
    checkpoint.

    Args:
        limit: the number of steps that may be left out in the whole run.
    """

    def __init__(self, session: Session, folder: RunFolder, observer: Observer, limit: int) -> None:
        self._session, self._folder, self._observer, self._limit = session, folder, observer, limit
        self._num_skipped = 0
        # Lets a save in flight end, to name the last one.
        self.before_stopping: Callable[[], None] = lambda: None

    def note_bad_step(self, step: int, loss: float | None) -> None:
        """Records that step ``step`` (from 1) was kept from the weights.

        Args:
            loss: the loss of the step, or None if it was not read.

        Raises:
            NumericsError: no more steps may be left out.
        """
        found = diagnose(self._session, step - 1)
        skips = self._num_skipped < self._limit
        reason = f"loss {loss:.6g}" if loss is not None else "loss or gradient"
        record = {
            "step": step,
            "reason": f"{reason}: {found}",
            "examples": found.examples,
            "suspects": found.suspects,
            "module": found.module,
            "where": found.where,
            "action": "skipped" if skips else "stopped",
        }
        self._folder.append("numerics.jsonl", record)
        if not skips:
            self.before_stopping()
            raise self._error(step, reason, found)
        self._num_skipped += 1
        self._observer.on_notice(
            f"step {step} was left out ({self._num_skipped} of {self._limit}): {reason} and its "
            "gradient must be "
            f"finite; {found}"
        )

    def look(self, step: int) -> None:
        """Asks the device for bad steps among those before ``step`` (from 1, included), if the
        guard defers that.

        Raises:
            NumericsError: there was one. Nothing has moved since.
        """
        self.judge(step, int(self._session.step_once.guard.num_flagged))

    def judge(self, step: int, num_flagged: int) -> None:
        """The same for a number of flagged steps that was read already."""
        if num_flagged:
            self.note_bad_step(step - num_flagged + 1, None)

    def state_dict(self) -> dict[str, Any]:
        """Returns how many steps were left out."""
        return {"num_skipped": self._num_skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._num_skipped = state["num_skipped"]

    def _error(self, step: int, reason: str, found: Diagnosis) -> NumericsError:
        saved = list_checkpoints(self._folder.path / "checkpoints")
        place = (
            f"The run can be resumed from checkpoints/{saved[-1].name}"
            if saved
            else "The run can be resumed from its beginning"
        )
        remedy = "take a smaller learning rate, a clip_norm or a warm-up"
        if found.where == "data":
            remedy = "mend or remove these examples"
        spent = f", after {self._num_skipped} that were left out," if self._num_skipped else ""
        return NumericsError(
            f"Loss and gradient must be finite numbers; at step {step}{spent} they were not",
            got=f"{reason}: {found}",
            remedy=f"What is saved was not touched, and numerics.jsonl has it all: {remedy}, or "
            "leave such steps out "
            f"with skip_bad_steps. {place}",
        )
