"""The texts of knobs and amounts: as a person writes them, and as tables show them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import Any

from volano.errors import PlanError, UsageError
from volano.plan.plan import Plan, declaration_of

# The longest that anybody may ask for, far beyond any training: products of it stay finite.
MOST_MINUTES = 10_000_000
# Binary units by IEC 80000-13, decimal units by SI.
_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}b": 1000 ** (power + 1) for power, letter in enumerate("kmgt")}
_UNITS |= {f"{letter}ib": 1024 ** (power + 1) for power, letter in enumerate("kmgt")}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")
_SWITCH = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


def knob_text(knob: str, value: Any) -> str:
    """Returns a knob's value in a word or two that name the knob as well: ``"bf16"``,
    ``"micro-batch 32"``."""
    phrase = None
    # An unknown value or knob comes from a file written by another program.
    with contextlib.suppress(PlanError, TypeError):
        declared = declaration_of(knob)
        phrase = declared["phrase"]
        if value in declared["words"]:
            return declared["words"][value]
    return (phrase or f"{knob.replace('_', ' ')} {{}}").format(value)


def changes_text(plan: Plan, base: Plan) -> str:
    """Returns in a few words how a plan differs from ``base``; ``"plain eager"`` if it does not."""
    words = [knob_text(knob, getattr(plan, knob)) for knob in base.changes(plan)]
    return " + ".join(words) or "plain eager"


def status_text(status: str) -> str:
    """Writes what became of a candidate plan, as files hold it, in the field's words."""
    return {"struck": "rejected", "memory": "too large", "untried": "not tried"}.get(status, status)


def parse_bytes(text: str) -> int:
    """Parses ``"40GiB"``, ``"512 MiB"``, ``"2GB"`` or a plain number as bytes. KiB, MiB, GiB, TiB
    are powers of 1024; kB, MB, GB, TB of 1000; upper or lower case.

    Raises:
        UsageError: the text has another form, or means less than one byte.
    """
    match = _AMOUNT.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    num_bytes = int(float(match[1]) * unit) if match and unit and len(match[1]) < 30 else 0
    if num_bytes < 1:
        raise UsageError(
            "An amount of memory must be a number of bytes, or one with a unit: KiB, MiB, GiB, "
            "TiB, kB, MB, GB, TB",
            got=repr(text),
            remedy="Write 40GiB, 512MiB or 2GB",
        )
    return num_bytes


def parse_setting(text: str) -> tuple[str, Any]:
    """Parses ``"precision=bf16"`` as a knob and a value of it.

    Raises:
        UsageError: the text has another form.
        PlanError: no such knob, or no such value of it.
    """
    knob, equals, written = text.partition("=")
    knob = knob.strip().replace("-", "_")
    if not equals:
        raise UsageError(
            "A knob and a value must be written KNOB=VALUE",
            got=repr(text),
            remedy="Write precision=bf16",
        )
    value = _value(knob, written.strip())
    Plan().pin(**{knob: value})  # raises if the plan does not know it
    return knob, value


def _value(knob: str, written: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(Plan)}
    usual = fields[knob].default if knob in fields else None
    if isinstance(usual, bool):
        return _SWITCH.get(written.lower(), written)
    if isinstance(usual, str) or knob not in fields:
        return written
    if usual is None and written.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return written
