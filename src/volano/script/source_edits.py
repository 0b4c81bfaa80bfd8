"""Edits of Python source at the places of its syntax tree, which leave everything else as it is:
comments, line breaks, quotes."""

from __future__ import annotations

import ast
import difflib
import io
import itertools
import tokenize
from pathlib import Path
from typing import NamedTuple

from volano.imported_files import parse_code

_SILENT = (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT)


class _Edit(NamedTuple):
    """A span of characters, and what takes its place."""

    start: int
    end: int
    text: str


class SourceFile:
    """A file of Python with its tree, and the edits that were asked for.

    Args:
        path: the file.
        name: the name by which diffs call it.

    Raises:
        SyntaxError: it is not Python.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        content = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        self.text = content.decode(encoding)
        self.tree = parse_code(content)
        self._lines = _lines_of(self.text)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self._tokens = [
            (self._starts[token.start[0] - 1] + token.start[1], token)
            for token in tokenize.generate_tokens(iter(self._lines).__next__)
            if token.type not in _SILENT
        ]
        self._edits: list[_Edit] = []

    def set_keywords(self, call: ast.Call, values: dict[str, str]) -> bool:
        """Has a call give keywords by literals: those that it gives by literals are changed, the
        others added. Returns False, with nothing changed, if it gives one by something else or
        unpacks a dictionary that may hold it, or the edited file would be no Python."""
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        edits = []
        if None in given and not values.keys() <= given.keys():
            return False
        for name, value in values.items():
            if name not in given:
                continue
            if not isinstance(given[name], ast.Constant):
                return False
            edits.append(_Edit(*self._span(given[name]), value))
        added = ", ".join(f"{name}={text}" for name, text in values.items() if name not in given)
        if added:
            edits.append(self._at_end(call, added))
        return self._try(edits)

    def code_of(self, node: ast.AST) -> str:
        """Returns a node as it is written."""
        return ast.get_source_segment(self.text, node) or ast.unparse(node)

    def edited(self) -> str:
        """Returns the source with every edit."""
        return self._with(self._edits)

    def diff(self) -> str:
        """Returns the edits as a unified diff, as ``patch -p1`` and ``git apply`` take it."""
        after = _lines_of(self.edited())
        lines = difflib.unified_diff(self._lines, after, f"a/{self.name}", f"b/{self.name}")
        no_end = "\n\\ No newline at end of file\n"
        return "".join(line if line.endswith("\n") else line + no_end for line in lines)

    def _try(self, edits: list[_Edit]) -> bool:
        wanted = [*self._edits, *edits]
        spans = sorted((edit.start, edit.end) for edit in wanted)
        if any(one[1] > other[0] for one, other in itertools.pairwise(spans)):
            return False
        try:
            parse_code(self._with(wanted))
        except SyntaxError:
            return False
        self._edits = wanted
        return True

    def _with(self, edits: list[_Edit]) -> str:
        text = self.text
        for edit in sorted(edits, key=lambda edit: -edit.start):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text

    def _at_end(self, call: ast.Call, added: str) -> _Edit:
        """Returns the edit that adds arguments behind a call's last one."""
        _, end = self._span(call)
        before = [found for found in self._tokens if found[0] < end - 1]
        start, last = before[-1]
        behind = start + len(last.string)
        if last.string == ",":
            return _Edit(behind, behind, f" {added},")
        is_first = not (call.args or call.keywords)
        return _Edit(behind, behind, added if is_first else f", {added}")

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self._position(node.lineno, node.col_offset),
            self._position(node.end_lineno, node.end_col_offset),
        )

    def _position(self, line: int, column: int) -> int:
        # The tree counts bytes of UTF-8 in a line.
        text = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(text)


def _lines_of(text: str) -> list[str]:
    """Returns lines as Python counts them, with their ends: ``splitlines`` parts at form feeds
    too."""
    return io.StringIO(text, newline="").readlines()
