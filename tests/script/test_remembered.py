"""Plans of scripts in the user's cache folder: what finds one again, and what does not."""

from __future__ import annotations

import json

import pytest

from volano.errors import UsageError
from volano.script.plan import ScriptPlan
from volano.script.remembered import (
    Script,
    argument_shape,
    digest,
    forget_scripts,
    free_values,
    list_scripts,
    may_be_remembered,
    own_code,
    remember,
    remembered,
)

PLAN = ScriptPlan(num_workers=2)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import data\nfrom parts import net\nimport json\n")
    (tmp_path / "data.py").write_text("size = 3\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "net.py").write_text("from . import block\n")
    (tmp_path / "parts" / "block.py").write_text("")
    (tmp_path / "other.py").write_text("")
    return tmp_path


def names(script):
    return sorted(path.name for path in own_code(script))


def test_a_plan_comes_back_for_the_same_script(folder):
    script = Script(target="train.py", arguments=("--epochs", "3"))
    assert remembered(script) is None
    assert not may_be_remembered(script)
    assert remember(script, PLAN, seconds=1.5) is None
    assert may_be_remembered(script)
    assert remembered(script) == PLAN
    assert remembered(Script(target="train.py", arguments=("--epochs", "30"))) == PLAN
    assert remembered(Script(target="train.py", arguments=("--width", "30"))) is None


def test_code_beside_the_script_belongs_to_it(folder):
    script = Script(target="train.py")
    found = ["__init__.py", "block.py", "data.py", "net.py", "train.py"]
    assert names(script) == found
    before = digest(script)
    (folder / "other.py").write_text("changed = 1")
    (folder / "data.py").write_text("size = 3  # a comment\n")
    assert digest(script) == before
    (folder / "parts" / "block.py").write_text("changed = 1")
    assert digest(script) != before


def test_code_that_does_not_parse_and_circles_are_no_trouble(folder):
    (folder / "data.py").write_text("import train\nfrom parts.net import *\n")
    (folder / "parts" / "net.py").write_text("((")
    assert names(Script(target="train.py")) == ["__init__.py", "data.py", "train.py"]


def test_a_module_is_found_in_the_current_folder(folder):
    assert names(Script(target="parts.net", is_module=True)) == ["block.py", "net.py"]
    away = Script(target="json.tool", is_module=True)
    assert not may_be_remembered(away)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (("--epochs", "3", "--batch-size", "8"), ["--epochs", "--batch-size", "8"]),
        (("--lr=0.1", "data"), ["--lr", "data"]),
        (("--num-epochs=3", "--width=4"), ["--num-epochs", "--width=4"]),
        (("--seed", "--amp", "x"), ["--seed", "--amp", "x"]),
    ],
)
def test_lengths_rates_and_places_are_no_part_of_the_shape(arguments, shape):
    assert argument_shape(arguments) == shape


def test_the_values_beside_the_shape():
    found = free_values(("--epochs", "3", "--lr=0.1", "--seed", "--width", "4"))
    assert found == {"--epochs": "3", "--lr": "0.1"}


@pytest.mark.parametrize(
    "change", [{"machine": ["another"]}, {"plan": {}}, {"schema_version": 9}, {"created": 10**400}]
)
def test_what_is_of_another_machine_or_damaged_is_not_taken(folder, change):
    script = Script(target="train.py")
    assert list_scripts() == []
    remember(script, PLAN, gain=1.5)
    (found,) = list_scripts()
    assert (found.script, found.plan, found.figures) == ("train.py", PLAN, {"gain": 1.5})
    assert json.loads(json.dumps(found.to_json()))["fingerprint"] == digest(script)
    (path,) = (folder / "cache").rglob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert remembered(script) is None
    path.write_text("{")
    assert remembered(script) is None
    assert list_scripts() == []
    assert forget_scripts() == 1
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.ipynb", "nbconvert"),
        ("parts", "a folder"),
        ("none.py", "no such"),
        (300 * "n" + ".py", "no such"),
        ("", "an empty name"),
        ("app.pyz", "the archive app.pyz"),
    ],
)
def test_what_is_no_script_is_said(folder, name, words):
    with pytest.raises(UsageError, match=words):
        Script(target=name).file()


def test_what_python_warns_of_in_a_script_is_not_said_twice(tmp_path):
    (tmp_path / "train.py").write_text('import beside\nprint("\\d")\n')
    (tmp_path / "beside.py").write_text('"\\d"\n')
    found = own_code(Script(target=str(tmp_path / "train.py")))
    assert [path.name for path in found] == ["train.py", "beside.py"]


def test_code_may_nest_deeper_than_python_walks_and_name_what_cannot_be(folder):
    script = Script(target="train.py")
    for value in (1, 2, "0x" + 5000 * "f"):  # of more digits than it writes
        imports = f"from {60 * '.'} import up\nimport {300 * 'n'}\n"
        (folder / "train.py").write_text(f"{imports}a = {1200 * '1+'}{value}\n")
        found = digest(script)
        assert digest(script) == found
        assert found not in {"", *folder.glob("seen-*")}
        (folder / f"seen-{found}").touch()
    assert len([*folder.glob("seen-*")]) == 3
