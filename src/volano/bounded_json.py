"""Parses JSON that others may have written: how deep it is nested is known before memory is taken.

How many bytes a file has is bounded where it is read (``record/files.py``).
"""

from __future__ import annotations

import json
import re
from typing import Any

# Nothing that is written here is a fifth as deep; what reads it again calls itself at each level.
_MOST_DEPTH = 64
# A text, closed or not, or a bracket; each character is looked at once.
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(text: str | bytes) -> Any:
    """Returns what a JSON text holds.

    Raises:
        ValueError: it is no JSON, or is nested too deep.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > _MOST_DEPTH:
        _check_depth(text)
    return json.loads(text)


def _check_depth(text: str) -> None:
    depth = 0
    for mark in _MARKS.finditer(text):
        first = text[mark.start()]
        if first in "[{":
            depth += 1
            if depth > _MOST_DEPTH:
                raise ValueError(f"nested deeper than {_MOST_DEPTH} levels")
        elif first != '"':
            depth -= 1
