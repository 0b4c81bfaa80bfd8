"""What every engine of a pack does: one contract, one suite of tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from volano.data import Feed
from volano.packing.feed import PackBatch
from volano.packing.member import MemberState


class Engine(ABC):
    """Trains the members of a pack, each exactly as it would train alone.

    Attributes:
        name: of the engine.
        solos: the members, in slot order.
    """

    name: ClassVar[str]
    solos: list[MemberState]  # a property in engines that hold others

    @abstractmethod
    def step(self, batch: PackBatch) -> Tensor:
        """One optimizer step of every member, at its own step. Losses before the update, [K] on the
        device, not read; NaN where a member's loss or gradient was not finite. Such a member
        reaches no other.

        Raises:
            NotPackable: the engine does not take the batch. The members stand as they stood before.
        """

    @abstractmethod
    def evaluate(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        """``loss`` and metrics of every member's kept model over a set, as ``training.evaluate``
        has them."""

    def evaluate_together(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        """The same by a program, where the engine has one for evaluations.

        Raises:
            NotPackable: it has none that takes them.
        """
        return self.evaluate(data, feed)

    def settled(self) -> list[MemberState]:
        """The members with all that they have alone in their own objects; another engine may go on
        with them."""
        return self.solos

    @abstractmethod
    def states(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        """The states of the members in ``slots`` on the host, as :class:`~volano.packing.Member`
        takes it."""

    @abstractmethod
    def keep(self, slots: Sequence[int]) -> None:
        """The members in ``slots`` stay, in that order. Nothing of theirs changes."""
