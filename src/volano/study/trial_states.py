"""The state of a study's live trials, in its folder: a resumed study starts from it.

states/trial-00000012.pt   torch.save of a member's state; loads with weights_only=True
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from volano.errors import ExploreError
from volano.record import files

_PREFIX = "trial-"


class TrialStates:
    """The states of trials, each in a file of its own.

    Args:
        folder: the folder that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, number: int) -> Path:
        return self._folder / f"{_PREFIX}{number:08d}.pt"

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Writes the state of a trial so that a reader sees the old or the new one.

        Raises:
            ExploreError: it cannot be written; the old one is whole.
        """
        target = self._path(number)
        try:
            files.make_folder(self._folder)
            with files.written(target) as partial:
                torch.save(state, partial)
        except (
            OSError,
            RuntimeError,
        ) as error:  # torch's writer turns a full disk into a RuntimeError
            raise ExploreError(
                "The states of a study's live trials must be writable",
                got=f"{target}: {error}",
                remedy="Make room on the disk, then continue with `resume`",
            ) from error

    def load(self, number: int) -> dict[str, Any] | None:
        """The state of a trial on the host, or None if there is none that can be read."""
        try:
            with files.open_regular(self._path(number)) as file:
                state = torch.load(file, map_location="cpu", weights_only=True)
        except Exception:  # noqa: BLE001 - what torch's reader raises for bytes that are none of its own has no end
            return None
        return state if isinstance(state, dict) else None

    def keep_only(self, numbers: Collection[int]) -> None:
        """Removes the states of all other trials, and what a process that was killed had half
        written."""
        kept = {self._path(number).name for number in numbers}
        for path in self._folder.glob(f"{_PREFIX}*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)
        files.tidy(self._folder)
