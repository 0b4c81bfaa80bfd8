"""The contract of every engine of a pack, with one suite of tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from volano.data import Feed
from volano.packing.member import MemberState
from volano.packing.pack_feed import PackBatch

# Of engines whose members step one by one.
MEMORY_OF_EACH = "each member's step would hold memory of its own"


class Engine(ABC):
    """An engine that trains the members of a pack, each exactly as it would train alone.

    Attributes:
        name: the engine's name.
        why_not_recorded: why it never records steps; None if it does where the device can.
        solos: the members, in slot order.
    """

    name: ClassVar[str]
    why_not_recorded: ClassVar[str | None] = None
    solos: list[MemberState]  # a property in engines that wrap others

    @abstractmethod
    def step(self, batch: PackBatch) -> Tensor:
        """Makes one optimizer step of every member, at its own step. Returns the losses before the
        update, [K] on the device, not read; NaN if a member's loss or gradient was not finite. Such
        a member affects no other.

        Raises:
            NotPackable: the engine does not take the batch. The members stand as they stood before.
        """

    @abstractmethod
    def evaluate(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        """Returns ``loss`` and metrics of every member's kept model over a set, as
        ``training.evaluate`` does."""

    def evaluate_together(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        """Evaluates all members by a program, if the engine has one for evaluations.

        Raises:
            NotPackable: the engine has no such program for these members.
        """
        return self.evaluate(data, feed)

    def settled(self) -> list[MemberState]:
        """Returns the members with everything of a training alone in their own objects, so that
        another engine may continue with them."""
        return self.solos

    @abstractmethod
    def states(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the states of the members in ``slots`` on the host, as
        :class:`~volano.packing.Member` takes them."""

    @abstractmethod
    def keep(self, slots: Sequence[int]) -> None:
        """Keeps the members in ``slots``, in that order. Nothing of theirs changes."""
