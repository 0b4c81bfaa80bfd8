"""Writes commands so that a shell takes them as they are pasted."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable


def quoted(text: str) -> str:
    """Returns a word of a command as this system's shell is to read it."""
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)


def command(words: Iterable[str]) -> str:
    """Returns a command of these words."""
    return " ".join(map(quoted, words))
