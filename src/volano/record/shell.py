"""Writes commands so that a shell takes them as they are pasted."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable


def quoted(text: str) -> str:
    """Returns a word of a command as this system's shell is to read it."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def is_command(text: str, *first: str) -> bool:
    """Returns whether a text that others may have written is one command that begins with certain
    words, and holds nothing that a shell would take for more than its words."""
    if os.name == "nt":
        return (
            text.isprintable()
            and text.split()[: len(first)] == [*first]
            and not (set(text) & set("&|<>^%"))
        )
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    return text.isprintable() and words[: len(first)] == [*first] and command(words) == text


def command(words: Iterable[str]) -> str:
    """Returns a command of these words."""
    return " ".join(map(quoted, words))
