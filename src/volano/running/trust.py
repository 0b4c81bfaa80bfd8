"""Keeps what code a person accepts: a run's or a study's folder may come from a stranger, and runs
no code by itself. Imports no torch.

The code that a folder names is loaded if the person has named the same in this process, or has said
that they trust the folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from volano.errors import UsageError

_NAMED: set[str] = set()
_TRUSTED: set[Path] = set()


def name_code(*values: Any) -> None:
    """Notes the references among the values that a person gave: what a folder names may be loaded
    if the person has named the same."""
    _NAMED.update(_identity(one) for one in values if isinstance(one, str) and ":" in one)


def trust_folder(folder: str | Path, trust: bool = True) -> None:
    """Notes whether a person trusts the code that the files of a folder name; the last word
    counts."""
    (_TRUSTED.add if trust else _TRUSTED.discard)(Path(folder).resolve())


def is_trusted(folder: str | Path) -> bool:
    """Returns whether a person trusts the code that the files of a folder name."""
    return Path(folder).resolve() in _TRUSTED


def check_trusted(reference: Any, folder: str | Path, *, by: str = "code") -> None:
    """Checks code that a file of a run's or a study's folder names, before it is loaded: a stranger
    may have written it.

    Args:
        by: the parameter with which a person can name the same code.

    Raises:
        UsageError: the person has neither named the same code nor said that they trust the folder.
    """
    is_named = isinstance(reference, str) and _identity(reference) in _NAMED
    if not is_named and not is_trusted(folder):
        raise UsageError(
            "A run's folder may name code, which runs only if you trust it",
            got=f"{reference} in {folder}",
            remedy=f"Give `trust` if you know that code, or name it yourself: `{by}` {reference}",
        )


def _identity(reference: str) -> str:
    """Returns a reference with the absolute path of its file: ``mine.py:task``, and ``mine:task``
    if mine.py lies in the current folder, where a module is looked for first."""
    module, _, name = reference.rpartition(":")
    is_file = module.endswith(".py")
    file = module if is_file else f"{module.replace('.', '/')}.py"
    if "\0" not in file and (is_file or os.path.isfile(file)):  # noqa: PTH113 - any text may come
        module = str(Path(file).resolve())
    return f"{module}:{name}"
