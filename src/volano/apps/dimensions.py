"""Checks the dimensions of a model that a run's folder describes, before memory is taken for it: a
stranger may have written them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volano.errors import CheckpointError


def check_dimensions(
    fields: Mapping[str, Any], bounds: Mapping[str, tuple[int, int]], file: str
) -> None:
    """Checks that whole numbers lie within their bounds; None is left to others.

    Args:
        fields: what the file holds.
        bounds: the least and the largest value by name.
        file: the name of the file, in words.

    Raises:
        CheckpointError: one does not.
    """
    for name, (least, most) in bounds.items():
        value = fields.get(name)
        if value is None:
            continue
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not least <= value <= most:
            raise CheckpointError(
                f"{file} must state {name} as a whole number from {least:,} to {most:,}",
                got=repr(value)[:80],
                remedy="It is damaged, or was not written by Volano",
            )


def check_figures(fields: Mapping[str, Any], names: Mapping[str, int | None], file: str) -> None:
    """Checks that lists of numbers have their lengths; what is None is left to others.

    Args:
        fields: what the file holds.
        names: the length by name.
        file: the name of the file, in words.

    Raises:
        CheckpointError: one is none, has another length, or holds something else.
    """
    for name, length in names.items():
        values = fields.get(name)
        if length is None or values is None:
            continue
        is_list = isinstance(values, list | tuple) and len(values) == length
        if not is_list or not all(type(value) in (int, float) for value in values):
            raise CheckpointError(
                f"{file} must state {name} as {length} numbers", got=repr(values)[:80]
            )
