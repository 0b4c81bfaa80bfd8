"""Code and applications that are named in words."""

import sys

import pytest

from volano.errors import UsageError
from volano.running.references import load_reference, load_task, task_again, training_at_import

MODULE = """
import dataclasses

@dataclasses.dataclass
class Answer:
    value: int = 42

answer = Answer()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a module, in which one stands; what is imported from there is forgotten
    afterwards."""
    (tmp_path / "of_my_own.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("of_my_own", "volano_user_of_my_own"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["of_my_own:answer", "of_my_own.py:answer"])
def test_a_module_or_a_file_of_the_current_folder(here, name):
    assert load_reference(name).value == 42


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_my_own", "named as module:name; got 'of_my_own'"),
        (":answer", "named as module:name"),
        ("of_my_own:", "named as module:name"),
        ("nowhere:answer", "nowhere: ModuleNotFoundError"),
        ("nowhere.py:answer", "nowhere.py: FileNotFoundError"),
        (
            "of_my_own:question",
            "in its module, of_my_own; got 'question'.*There are: Answer, answer, dataclasses",
        ),
    ],
)
def test_what_names_nothing_is_refused(here, name, message):
    with pytest.raises(UsageError, match=message):
        load_reference(name)


def test_a_module_that_breaks_is_told(here):
    (here / "of_my_own.py").write_text("1 / 0")
    with pytest.raises(UsageError, match="of_my_own.py: ZeroDivisionError"):
        load_reference("of_my_own.py:answer")


def test_a_task_or_what_makes_one(here, make_task, monkeypatch):
    task = make_task()
    for value in (task, lambda: task):
        monkeypatch.setattr(
            "volano.running.references.load_reference", lambda name, value=value: value
        )
        assert load_task("any:name") is task
    monkeypatch.undo()
    with pytest.raises(
        UsageError, match=r"must name a volano.Task or a function.*of_my_own.py:answer: Answer"
    ):
        load_task(str(here / "of_my_own.py:answer"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os:system", "builtin"),
        ("shutil:which", "Python's own module shutil"),
        ("mine.py:Net", "Net, a class"),
        ("mine.py:net", "got mine.py:net: Net"),
        ("mine.py:model", "a function that returns Net"),
        ("mine.py:build", "a function with arguments"),
        ("mine.py:plain", "a function that returns int"),
        ("mine.py:broken", "which raised ZeroDivisionError"),
    ],
)
def test_what_is_no_task_by_its_type_is_not_called(here, name, message):
    (here / "mine.py").write_text(
        "class Net:\n    def __call__(self): raise AssertionError\n"
        "net = Net()\ndef model() -> Net: raise AssertionError\n"
        "def build(trial): raise AssertionError\ndef plain(): return 3\ndef broken(): 1 / 0\n"
    )
    with pytest.raises(UsageError, match=f"must name a volano.Task.*{message}"):
        load_task(name)


def test_a_file_imports_what_lies_beside_it(here):
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "beside_it.py").write_text("answer = 43")
    (folder / "main_file.py").write_text("from beside_it import answer")
    try:
        assert load_reference("elsewhere/main_file.py:answer") == 43
        assert sys.path[0] == str(folder)
    finally:
        for name in ("beside_it", "volano_user_main_file"):
            sys.modules.pop(name, None)


def test_a_file_with_the_name_of_a_module_of_pythons_own(here):
    (here / "secrets.py").write_text("key = 7")
    (here / "of_my_own.py").write_text("from secrets import key as answer")
    import secrets

    for name in ("of_my_own:answer", "of_my_own.py:answer"):
        assert load_reference(name) == 7
    assert sys.modules["secrets"] is secrets
    assert load_reference("secrets:key") == 7


def test_code_that_ends_the_program_at_import(here):
    (here / "ends.py").write_text("import sys\nsys.exit(0)")
    with pytest.raises(UsageError, match="ends.py: SystemExit: 0"):
        load_reference("ends.py:x")


def test_code_that_trains_at_import_is_said(here):
    (here / "trains.py").write_text(
        "from volano.running.references import training_at_import\nsaid = training_at_import()"
    )
    assert load_reference("trains.py:said").startswith("trains.py trains while it is imported")
    assert training_at_import() is None


def test_a_file_is_run_once(here):
    (here / "counted.py").write_text(
        "import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\nx = 1"
    )
    try:
        assert load_reference("counted.py:x") == load_reference("counted.py:x") == 1
        assert sys.counted == 1
        (here / "counted.py").write_text("x = 22222")  # another content is another module
        assert load_reference("counted.py:x") == 22222
    finally:
        sys.modules.pop("volano_user_counted", None)
        del sys.counted


def test_an_application_that_is_not_there(tmp_path):
    from volano.training import RunFolder

    folder = RunFolder(tmp_path / "run")
    folder.make()
    folder.update_run(source={"kind": "sound"})
    with pytest.raises(UsageError, match="one that this version knows.*got 'sound'"):
        task_again(folder, "sound")
