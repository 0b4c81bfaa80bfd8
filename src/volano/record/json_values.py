"""Reads JSON that others may have written: whatever is there, and in words what is missing.

A report is also made of a run that failed, that was killed, or whose files a full disk cut short,
and of a folder that a stranger sent. So nothing here raises for a piece that is missing, damaged or
of another type.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from volano.bounded_json import parse_json
from volano.errors import first_line
from volano.record.files import read_bytes

# name -> type, or the types of what an object holds.
Kinds = Mapping[str, Any]


def mapping(value: Any) -> Mapping[str, Any]:
    """Returns ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """Returns ``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """Returns ``value`` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond any float
        return None


def numbers(value: Any) -> list[float]:
    """The finite numbers of a list."""
    return [found for found in map(number, sequence(value)) if found is not None]


def finite(value: Any) -> Any:
    """Returns values with null for numbers that are not finite: JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_object(path: Path, missing: list[str], *, is_expected: bool = True) -> Mapping[str, Any]:
    """A JSON object; an empty one if there is none, and ``missing`` gets the reason."""
    try:
        value = parse_json(read_bytes(path))
    except FileNotFoundError:
        if is_expected:
            missing.append(f"{path.name} is not there")
        return {}
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read: {first_line(error)}")
        return {}
    if not isinstance(value, dict):
        missing.append(f"{path.name} holds no JSON object")
        return {}
    return value


def read_lines(
    path: Path, missing: list[str], *, is_expected: bool
) -> tuple[Mapping[str, Any], ...]:
    """A file of JSON objects, one a line; damaged ones are left out, and ``missing`` hears of
    them."""
    try:
        lines = read_bytes(path).decode(errors="replace").split("\n")
    except FileNotFoundError:
        if is_expected:
            missing.append(f"{path.name} is not there")
        return ()
    except OSError as error:
        missing.append(f"{path.name} cannot be read: {first_line(error)}")
        return ()
    filled = [line for line in lines if line.strip()]
    records = tuple(record for record in map(parse_line, filled) if record is not None)
    if len(records) < len(filled):
        num_damaged = len(filled) - len(records)
        missing.append(
            f"{path.name}: {num_damaged} of {len(filled)} lines are damaged and left out"
        )
    return records


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """Returns the JSON object in a line, or None if it holds none: damaged, or cut short by a
    crash."""
    try:
        value = parse_json(line)
    except ValueError:  # bytes that are no text are a ValueError too
        return None
    return value if isinstance(value, dict) else None


def of_other_kinds(
    facts: Mapping[str, Any], kinds: Kinds, within: str = ""
) -> Iterator[tuple[str, str, Any]]:
    """Yields name, wanted type and value of what is there and of another type."""
    for name, kind in kinds.items():
        value = facts.get(name)
        if value is None:
            continue
        type_: Any = dict if isinstance(kind, Mapping) else kind
        is_bool = isinstance(value, bool)  # which Python takes for a number
        if not isinstance(value, type_) or (is_bool and type_ is not bool):
            names = type_ if isinstance(type_, tuple) else (type_,)
            yield within + name, " or ".join(one.__name__ for one in names), value
        elif isinstance(kind, Mapping) and isinstance(value, Mapping):
            yield from of_other_kinds(value, kind, f"{within}{name}.")
