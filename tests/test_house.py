"""What keeps the house readable at speed: sizes of folders, names, imports."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import volano

SOURCE = Path(volano.__file__).parent
ROOT = Path(__file__).parents[1]
MODULES = sorted(SOURCE.rglob("*.py"))


def test_a_folder_can_be_read_at_a_glance():
    counts = {folder: len(list(folder.glob("*.py"))) for folder in [SOURCE, *SOURCE.rglob("*")] if folder.is_dir()}
    assert {str(folder): count for folder, count in counts.items() if count > 16} == {}


def test_class_names_are_unique():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.col_offset == 0:
                homes[node.name].append(str(path.relative_to(SOURCE)))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_what_is_imported_is_computed_in_the_door_and_for_references_alone():
    computed = {
        str(path.relative_to(SOURCE)) for path in MODULES if "import_module(" in path.read_text(encoding="utf-8")
    }
    assert computed == {"__init__.py", "running/references.py"}


def test_every_folder_is_a_package_with_a_sentence():
    for folder in SOURCE.rglob("*"):
        if folder.is_dir() and list(folder.glob("*.py")):
            text = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), folder


def test_files_that_are_named_in_text_exist():
    """In docstrings, comments and pages: ``planner/time/roofline.py``. The log tells of what was, and is left out."""
    tops = "|".join(
        sorted(folder.name for folder in SOURCE.iterdir() if folder.is_dir() and folder.name != "__pycache__")
    )
    named = re.compile(rf"(?<![\w/.])(?:src/volano/)?((?:{tops})/[a-z_0-9/]+\.py)")
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md"]
    for path in [*MODULES, *pages, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in named.findall(path.read_text(encoding="utf-8")):
            assert (SOURCE / name).is_file(), f"{path}: {name}"
