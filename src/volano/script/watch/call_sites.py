"""Finds the line of the person's own code that is running: the innermost that lies in no
library."""

from __future__ import annotations

import inspect
import os
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import CodeType, FrameType

from volano.script.watch.step_recorder import CodeLines

_OWN = str(Path(__file__).resolve().parents[2]) + os.sep
_LIBRARIES = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


class CallSites:
    """The lookup of lines of the person's code.

    Args:
        roots: the folders in which it lies.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = tuple(os.path.join(os.path.realpath(root), "") for root in roots)  # noqa: PTH118
        paths = sysconfig.get_paths()
        self._libraries = tuple({paths["stdlib"] + os.sep, paths["platstdlib"] + os.sep, _OWN})
        self._known: dict[CodeType, str | None] = {}

    def here(self) -> CodeLines | None:
        """Returns the person's line that runs now; None if none does."""
        frame = inspect.currentframe()
        while frame is not None:
            file = self._file_of(frame)
            if file is not None:
                return file, frame.f_lineno, frame.f_lineno
            frame = frame.f_back
        return None

    def of_code(self, function: object) -> CodeLines | None:
        """Returns where a function of the person's is written; None for one of a library."""
        code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
        file = None if code is None else self._own_file(code)
        return None if code is None or file is None else (file, code.co_firstlineno, 0)

    def _file_of(self, frame: FrameType) -> str | None:
        code = frame.f_code
        try:
            return self._known[code]
        except KeyError:
            file = self._known[code] = self._own_file(code)
            return file

    def _own_file(self, code: CodeType) -> str | None:
        path = code.co_filename
        if path.startswith("<"):
            return None
        path = os.path.realpath(path)
        if path.startswith(self._libraries):
            return None
        for root in self._roots:
            if path.startswith(root):
                # An environment of libraries often lies in the project's folder.
                inside = os.sep + path[len(root) :]
                return None if any(name in inside for name in _LIBRARIES) else path
        return None
