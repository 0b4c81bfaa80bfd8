"""A script runs here as ``python`` runs it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from volano.imported_files import HiddenModules
from volano.script.main_program import after_import

SCRIPT = """
import sys, __main__, signal
print(sys.argv, __name__, __file__, sys.path[0], __spec__ is None, __package__, "torch" in sys.modules)
print(type(__builtins__), __main__.__dict__ is globals(), signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
def fail(): raise ValueError("mine")
match sys.argv[1:]:
    case ["raise"]: fail()
    case ["words"]: sys.exit("words")
    case ["code"]: sys.exit(7)
    case ["interrupt"]: raise KeyboardInterrupt
    case ["hook"]:
        sys.excepthook = lambda kind, error, traceback: print("hook", kind, traceback.tb_lineno)
        fail()
"""  # noqa: E501


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scripts")
    (path / "sub").mkdir()
    (path / "sub" / "__init__.py").write_text("")
    (path / "sub" / "script.py").write_text(SCRIPT)
    (path / "wrong.py").write_text("x = = 1\n")
    # What Volano has loaded before has these names.
    (path / "hiding").mkdir()
    for name in ("secrets", "difflib", "statistics", "test"):
        (path / "hiding" / f"{name}.py").write_text(f"mine = '{name}'\n")
    (path / "hiding" / "script.py").write_text(
        "import difflib, secrets, statistics, test\n"
        "print(difflib.mine, secrets.mine, statistics.mine, test.mine)\n"
    )
    (path / "hiding" / "bom.py").write_bytes(
        b"\xef\xbb\xbfif True:\r\n\tprint('\xc3\xa4', 0x" + b"f" * 5000 + b" > 1)\r\n"
    )
    (path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint('\xe4')\n")
    (path / "link.py").symlink_to(path / "hiding" / "script.py")
    return path


def outcome(folder, *words):
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, env={**os.environ}
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("volano: ")]
    return done.returncode, done.stdout, lines, len(done.stderr.splitlines()) - len(lines)


@pytest.mark.parametrize(
    "words",
    [
        "sub/script.py --data x", "./sub/script.py raise", "sub/script.py words",
        "sub/script.py code", "sub/script.py interrupt", "sub/script.py hook", "wrong.py",
        "-m sub.script a", "-m sub.script code", "hiding/script.py", "hiding/bom.py", "link.py",
        "latin.py",
    ],
)  # fmt: skip
def test_output_traceback_and_exit_code_are_the_scripts(folder, words):
    alone = outcome(folder, *words.split())
    run = outcome(folder, "-m", "volano", "run", *words.split())
    assert run[:3] == alone[:3]
    assert run[3] == 1  # one line is ours
    assert alone[1] or "wrong" in words


def test_who_asks_whether_there_is_a_module_has_not_imported_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "asked_for.py").write_text("value = 1\n")
    told, finders = [], list(sys.meta_path)
    after_import("asked_for", lambda: told.append(sys.modules["asked_for"].value))
    for _ in range(2):  # as transformers and accelerate look for torch
        assert importlib.util.find_spec("asked_for") is not None
    assert told == []
    module = importlib.import_module("asked_for")
    assert (told, sys.meta_path) == ([1], finders)
    assert "exec_module" not in vars(module.__spec__.loader)
    monkeypatch.delitem(sys.modules, "asked_for")


def test_what_volano_imports_late_is_pythons_own(tmp_path, monkeypatch):
    (tmp_path / "asked_later.py").write_text("import secrets\n")
    (tmp_path / "secrets.py").write_text("key = 7\n")
    hidden = HiddenModules(str(tmp_path), {"secrets"})
    monkeypatch.setattr("volano.script.main_program._hidden", [hidden])
    monkeypatch.syspath_prepend(tmp_path)
    told = []

    def imports_late():
        import secrets

        told.append(hasattr(secrets, "token_hex"))

    hidden.exchange()
    try:
        after_import("asked_later", imports_late)
        module = importlib.import_module("asked_later")
    finally:
        hidden.exchange()
        sys.modules.pop("asked_later", None)
    assert (told, module.secrets.key) == ([True], 7)


def test_what_a_package_lacks_is_no_mistake_in_the_modules_name(tmp_path):
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "__init__.py").write_text("import not_there_at_all\n")
    (tmp_path / "lacking" / "train.py").write_text("")
    code, _, lines, _ = outcome(tmp_path, "-m", "volano", "run", "-m", "lacking.train")
    assert code == 1
    assert lines[-1] == "ModuleNotFoundError: No module named 'not_there_at_all'"
