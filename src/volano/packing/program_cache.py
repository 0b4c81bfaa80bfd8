"""The cache of programs that train packs of tasks of one structure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from volano.device import Device
from volano.errors import UsageError
from volano.packing.member import MemberState
from volano.packing.program.program import Structure
from volano.packing.structure.grouping import TaskGroup, groups_of

ProgramKey = tuple[Any, ...]
# Compiling takes 6 to 14 s (docs/log.md, "Packs"): batches of other lengths than the first ones run
# their graphs as traced.
_MOST_COMPILED = 2


class ProgramCache:
    """The shared parts of packs of one structure: its numbers, and the programs made for it.

    Args:
        first: a member, which represents all.
        group: the group, with the numbers that vary between its members.
        device, precision: device and precision of the training.
    """

    def __init__(
        self, first: MemberState, group: TaskGroup, device: Device, precision: str
    ) -> None:
        self._first = first
        self._varying = group.varying
        self.structure = Structure(group.varying, first.model, device, precision)
        self.programs: dict[ProgramKey, Any] = {}
        self._compiled_for: set[ProgramKey] = set()
        # The choices by the number of members; of type
        # :class:`volano.packing.choose_engine.EngineChoice`.
        self.choices: dict[int, Any] = {}
        # What of these packs does not run as their engine does, and why: ``"evaluation"``, if each
        # member is evaluated alone, or ``"other batches"``.
        self.refused: dict[str, str] = {}
        self._was_told = False

    @classmethod
    def of(
        cls, solos: Sequence[MemberState], known: ProgramCache | None, device: Device,
        precision: str, *, may_differ: bool = False,
    ) -> ProgramCache:  # fmt: skip
        """Returns the family of members: ``known``, if it is theirs, or a new one.

        Raises:
            UsageError: they are of several structures, and ``may_differ`` is not set.
        """
        if known is not None and all(known.numbers(solo) is not None for solo in solos):
            return known
        first, *others = _groups_of(solos)
        if others and not may_differ:
            raise UsageError(
                "The members of a pack must have one structure",
                got="; ".join(first.reasons),
                remedy="Make a pack of each structure: volano.packing.groups_of tells them apart",
            )
        return cls(solos[0], first, device, precision)

    def numbers(self, solo: MemberState) -> dict[str, float] | None:
        """Returns the numbers of a member; None if it is not of the family, or differs in something
        that is the same for the whole family."""
        group, *others = _groups_of([self._first, solo])
        if others:
            return None
        own = group.varying.of(1)
        if not own.keys() <= self.structure.names:
            return None
        return {**self._varying.of(0), **own}

    def tell_once(self, on_notice: Callable[[str], None], text: str) -> None:
        """Reports a text, only the first time."""
        if not self._was_told:
            on_notice(text)
        self._was_told = True

    def is_worth_compiling(self, shape: ProgramKey) -> bool:
        """Checks whether programs for batches of a shape are compiled: those of the first shapes
        are."""
        if len(self._compiled_for) < _MOST_COMPILED:
            self._compiled_for.add(shape)
        return shape in self._compiled_for

    def program(self, key: ProgramKey, make: Callable[[], Any]) -> Any:
        """Returns the program of a key, made once."""
        if key not in self.programs:
            self.programs[key] = make()
        return self.programs[key]


def _groups_of(solos: Sequence[MemberState]) -> list[TaskGroup]:
    tasks, models, optimizers = zip(*((s.task, s.model, s.optimizer) for s in solos), strict=True)
    return groups_of(tasks, models, optimizers)
