"""The files that code imports from beside it, and modules of Python's own that they hide."""

from __future__ import annotations

import difflib
import os
import secrets
import sys
from pathlib import Path

import pytest

from volano.imported_files import (
    HiddenModules,
    imported_files,
    imported_from,
    names_hidden_by,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files that have the names of modules of Python's own."""
    for name in ("secrets", "difflib", "safetensors", "sys", "os", "mine"):
        (tmp_path / f"{name}.py").write_text("key = 7\n")
    for name in ("json", "calendar"):
        (tmp_path / name).mkdir()
    (tmp_path / "calendar" / "__init__.py").write_text("key = 7\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    yield tmp_path
    for name in ("mine", "one", "two"):
        sys.modules.pop(name, None)


def test_what_comes_first_anyway_is_not_hidden(folder):
    assert names_hidden_by(folder) == {
        "secrets",
        "difflib",
        "calendar",
        "safetensors",
    }  # json/ holds no code
    assert names_hidden_by(folder / "nowhere") == frozenset()


def test_imports_are_followed_and_nothing_is_run(folder):
    (folder / "mine.py").write_text("1 / 0\nimport secrets, not_there.at_all\n")
    (folder / "secrets.py").write_text("from calendar import x\nfrom .difflib import y\n")
    (folder / "difflib.py").write_text("x = = 1\n")
    os.mkfifo(folder / "not_there.py")  # which would be read for ever
    found = {path.relative_to(folder).as_posix() for path in imported_files(
        [folder / "mine.py"], folder)}  # fmt: skip
    assert found == {"mine.py", "secrets.py", "calendar/__init__.py"}


def test_either_are_loaded(folder):
    modules = HiddenModules(str(folder), {"secrets", "calendar"})
    sys.path.insert(0, str(folder))
    modules.exchange()
    try:
        import secrets as persons

        assert persons.key == 7
        with modules.set_aside():
            import secrets as pythons

            assert pythons is secrets
            assert str(folder) not in sys.path
        assert sys.modules["secrets"] is persons
        assert sys.path[0] == str(folder)
    finally:
        modules.exchange()
    assert sys.modules["secrets"] is secrets


def test_a_file_takes_what_lies_beside_it_and_others_take_pythons_own(folder):
    (folder / "mine.py").write_text("import secrets, calendar\nkey = secrets.key + calendar.key\n")
    with imported_from(folder, [folder / "mine.py"]):
        import mine

        assert sys.modules["difflib"] is difflib  # which mine.py does not import
    assert mine.key == 14
    assert sys.modules["secrets"] is secrets
    own, behind = sys.path.index(str(folder)), sys.path.index(str(Path(os.__file__).parent))
    assert own > behind
    assert [entry for entry in sys.path[behind:own] if "site-packages" in entry] == []


def test_a_second_file_of_the_folder_takes_what_lies_beside_it_too(folder):
    (folder / "one.py").write_text("import secrets\nkey = secrets.key\n")
    (folder / "two.py").write_text("import calendar\nkey = calendar.key\n")
    with imported_from(folder, [folder / "one.py"]):
        import one
    path = [*sys.path]
    with imported_from(folder, [folder / "two.py"]):
        import two
    assert (one.key, two.key) == (7, 7)
    assert sys.path == path


def test_a_folder_that_hides_nothing_stays_first(folder):
    inner = folder / "inner"
    inner.mkdir()
    (inner / "mine.py").write_text("key = 8\n")
    with imported_from(inner, [inner / "mine.py"]):
        import mine
    assert mine.key == 8
    assert sys.path[0] == str(inner)
