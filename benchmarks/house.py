"""Measures the house: sizes of files, functions and classes, names, and who imports whom.

    python benchmarks/house.py [--tree CHECKOUT] [--json]

Function length is the body without its docstring. Rooms are folders (and files beside them), an
arrow is an import from one room to another, floors are the longest chain of arrows. Nothing is
imported: all of it is read off the source.
"""

from __future__ import annotations

import argparse
import ast
import collections
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
LONG_FUNCTION, MANY_PARAMETERS, LARGE_CLASS, LARGE_FILE, WIDE = 40, 8, 200, 350, 100
LEAST_TESTED = 40  # lines from which on a module has a test file of its own
Functions = ast.FunctionDef | ast.AsyncFunctionDef


def measure(tree: Path) -> dict[str, Any]:
    """Returns the figures of a checkout."""
    source, tests = tree / "src" / "volano", tree / "tests"
    paths = sorted(source.rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    lines = {path: text.splitlines() for path, text in texts.items()}
    nodes = [node for parsed in trees.values() for node in ast.walk(parsed)]
    functions = [node for node in nodes if isinstance(node, Functions)]
    lengths = sorted(length_of(node) for node in functions)
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    names = collections.Counter(node.name for node in classes)
    sizes = sorted(len(rows) for rows in lines.values())
    folders = collections.Counter(path.parent for path in paths)
    untested = [
        path
        for path in paths
        if len(lines[path]) > LEAST_TESTED
        and not (tests / path.relative_to(source).parent / f"test_{path.name}").is_file()
    ]
    every = [row for rows in lines.values() for row in rows]
    return {
        "files": len(paths),
        "lines": sum(sizes),
        "statements": sum(isinstance(node, ast.stmt) for node in nodes),
        "file p90": sizes[int(0.9 * len(sizes))],
        f"files > {LARGE_FILE}": sum(size > LARGE_FILE for size in sizes),
        "function p50": lengths[len(lengths) // 2],
        "function p90": lengths[int(0.9 * len(lengths))],
        "function p99": lengths[int(0.99 * len(lengths))],
        f"functions > {LONG_FUNCTION}": sum(length > LONG_FUNCTION for length in lengths),
        f"functions > {MANY_PARAMETERS} parameters": sum(
            num_parameters(node) > MANY_PARAMETERS for node in functions
        ),
        f"classes > {LARGE_CLASS}": sum(
            (node.end_lineno or 0) - node.lineno > LARGE_CLASS for node in classes
        ),
        f"lines > {WIDE}": sum(len(row) > WIDE for row in every),
        f"lines > {WIDE} but for noqa and pyright": sum(
            len(row) > WIDE and "noqa" not in row and "pyright:" not in row for row in every
        ),
        "own-line comments": sum(row.strip().startswith("#") for row in every),
        "class names that occur twice": sum(count > 1 for count in names.values()),
        "most files in a folder": max(folders.values()),
        "modules without a test of their own": len(untested),
        **pictured(source, trees),
    }


def length_of(function: Functions) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def num_parameters(function: Functions) -> int:
    """Parameters but for ``self`` and ``cls``."""
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in names)


def pictured(source: Path, trees: dict[Path, ast.Module]) -> dict[str, Any]:
    """Rooms, floors, arrows and circles: of the whole house, and inside of its larger rooms."""
    imports = {path: set(imported(path, parsed, source)) for path, parsed in trees.items()}
    found: dict[str, Any] = {}
    for within in ("", "planner", "training", "packing", "study", "data"):
        top = source / within
        arrows = collections.defaultdict(set)
        rooms = {room_of(path, top) for path in trees if top in path.parents} - {None}
        for path, targets in imports.items():
            for target in targets:
                start, end = room_of(path, top), room_of(target, top)
                if start and end and start != end:
                    arrows[start].add(end)
        number = sum(map(len, arrows.values()))
        floors = floors_of(arrows)
        circle = " with a circle" if floors is None else f" / {floors}"
        found[f"rooms / floors / arrows in {within or 'volano'}"] = (
            f"{len(rooms)}{circle} / {number}"
        )
    return found


def imported(path: Path, parsed: ast.Module, source: Path) -> list[Path]:
    """The files of the house that a file imports, at its top or inside of functions."""
    found = []
    for node in ast.walk(parsed):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("volano"):
            base = source.joinpath(*(node.module or "").split(".")[1:])
            for name in node.names:
                choices = (base / f"{name.name}.py", base.with_suffix(".py"), base / "__init__.py")
                found += [choice for choice in choices if choice.is_file() and choice != path][:1]
    return found


def room_of(path: Path, top: Path) -> str | None:
    """The folder or file directly in ``top`` in which a file lies; None: not in it, or its door."""
    if top not in path.parents:
        return None
    first = path.relative_to(top).parts[0]
    return None if first == "__init__.py" else first.removesuffix(".py")


def floors_of(arrows: dict[str, set[str]]) -> int | None:
    """The longest chain of arrows, counted in rooms; None if they run in a circle."""
    heights: dict[str, int] = {}

    def height(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise RecursionError
        if room not in heights:
            lower = [height(next_room, (*above, room)) for next_room in arrows.get(room, ())]
            heights[room] = 1 + max(lower, default=0)
        return heights[room]

    try:
        return max((height(room, ()) for room in list(arrows)), default=1)
    except RecursionError:
        return None


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=HERE)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.tree)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:45} {value}")


if __name__ == "__main__":
    main()
