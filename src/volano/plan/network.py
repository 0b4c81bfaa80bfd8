"""The network of a task by its parts, as a value: how many parameters each has, how many are
trained, and what keeping the outputs of frozen ones saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NetworkPart:
    """A part of a network: its name in the model, the class of its module, its parameters and how
    many of them are trained."""

    name: str
    module: str
    parameters: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class NetworkFigures:
    """A network as an explanation shows it.

    Attributes:
        parts: its parts, in the model's order.
        frozen: what becomes of what frozen layers compute, in words; empty if none is frozen.
        saved_seconds: seconds of the run that keeping it saves; None if it is not kept.
        is_measured: whether these follow from measured steps; otherwise from a few examples.
    """

    parts: tuple[NetworkPart, ...]
    frozen: str = ""
    saved_seconds: float | None = None
    is_measured: bool = False

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NetworkFigures:
        """Reads the fields again.

        Raises:
            TypeError: there are others.
        """
        parts = tuple(NetworkPart(**part) for part in value["parts"])
        return cls(**{**value, "parts": parts})
