"""Lines of the person's own code."""

from __future__ import annotations

import json

from volano.script.watch.call_sites import CallSites


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return compile(text, str(folder / name), "exec")


def test_the_innermost_line_that_lies_in_no_library(tmp_path):
    sites = CallSites([tmp_path])
    found = []
    inside = write(tmp_path / ".venv" / "lib" / "site-packages", "library.py", "note()\n")
    code = "\n\ndef train():\n    library()\ntrain()\n"
    mine = write(tmp_path, "mine.py", code)
    exec(mine, {"library": lambda: exec(inside, {"note": lambda: found.append(sites.here())})})
    assert found == [(str(tmp_path / "mine.py"), 4, 4)]


def test_nothing_of_the_persons_runs(tmp_path):
    assert CallSites([tmp_path]).here() is None


def test_where_a_function_is_written(tmp_path):
    names = {}
    exec(write(tmp_path, "mine.py", "\ndef mine():\n    pass\n"), names)
    sites = CallSites([tmp_path])
    assert sites.of_code(names["mine"]) == (str(tmp_path / "mine.py"), 2, 0)
    assert sites.of_code(json.dumps) is None
    assert sites.of_code(len) is None
