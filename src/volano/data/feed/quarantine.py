"""The quarantine: the list of a run's corrupt examples, and when there are too many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from volano.data.feed.fetch import Fault
from volano.errors import DataError

MAX_SHARE = 0.10
# If fewer examples than this were seen, a share says little.
_FEW = 50
_MOST_SAID = 3


def fault_notices(faults: Sequence[Fault], said: str = "left out") -> list[str]:
    """Returns in words what could not be read of a source: the first ones, and how many more the
    run's list names; ``said``: what became of them."""
    notices = [f"{said}: {fault}" for fault in faults[:_MOST_SAID]]
    if len(faults) > _MOST_SAID:
        notices.append(f"{len(faults) - _MOST_SAID} more are listed in quarantine.jsonl")
    return notices


def check_readable(num: int, what: str, faults: Sequence[Fault]) -> None:
    """Raises DataError if none of the examples that a person names could be read; ``what``: what
    they are ("images")."""
    if not num:
        first = f"; the first: {faults[0]}" if faults else ""
        raise DataError(f"At least one of the {what} must be readable", got=f"none{first}")


def check_share(
    faults: Sequence[Fault], num_files: int, what: str, max_share: float = MAX_SHARE
) -> None:
    """Raises DataError if too large a share of files cannot be read; ``what``: what they hold."""
    if len(faults) > max_share * num_files:
        raise DataError(
            f"At most {max_share:.0%} of the {what} may be unreadable",
            got=f"{len(faults)} of {num_files}; the first: {faults[0]}",
            remedy="Mend or remove them",
        )


class Quarantine:
    """A collection of faults; the same example counts once.

    Args:
        num_examples: number of examples in the data.
        on_fault: called with each new fault.
    """

    def __init__(self, num_examples: int, on_fault: Callable[[Fault], None] | None = None) -> None:
        self._num_examples = num_examples
        self._on_fault = on_fault
        self._num_seen = 0
        self.faults: dict[int, Fault] = {}

    def add(self, faults: list[Fault], num_seen: int) -> None:
        """Notes a batch's faults.

        Raises:
            DataError: more than ``MAX_SHARE`` of the examples seen are corrupt.
        """
        self._num_seen = min(self._num_seen + num_seen, self._num_examples)
        for fault in faults:
            if fault.index not in self.faults:
                self.faults[fault.index] = fault
                if self._on_fault is not None:
                    self._on_fault(fault)
        if len(self.faults) > MAX_SHARE * max(self._num_seen, min(_FEW, self._num_examples)):
            first = next(iter(self.faults.values()))
            raise DataError(
                f"At most {MAX_SHARE:.0%} of the examples may be corrupt",
                got=f"{len(self.faults)} of {self._num_seen} seen; the first: {first}",
                remedy="Mend or remove them; the run's quarantine.jsonl lists all that were found",
            )
