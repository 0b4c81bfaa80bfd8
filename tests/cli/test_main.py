"""The entry point: exit codes, messages in flags, and hints."""

import json
import re
import subprocess
import sys

import pytest

from volano.cli import commands, main
from volano.cli.main import app, in_flags, run
from volano.errors import UsageError
from volano.record.format import parameters_worded
from volano.task.calls import called
from volano.training.progress import PlainProgress


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    commands.register(app)
    monkeypatch.chdir(tmp_path)


class TestInFlags:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("`image_size` and `batch_size`", "--image-size and --batch-size"),
            ("`path` must exist", "PATH must exist"),
            ("`run` is a folder", "RUN is a folder"),
            ("`class_name` is one", "--class is one"),
            ("no option", "no option"),
            ("`module.name` and `two words`", "`module.name` and `two words`"),
            ("a lone ` stays", "a lone ` stays"),
            ("``image_size``", "`--image-size`"),
        ],
    )
    def test_parameters_are_written_as_flags(self, text, expected):
        assert in_flags(text, []) == expected

    def test_a_name_that_is_no_option_stays(self):
        assert in_flags("`num_eggs` is above 0", []) == "`num_eggs` is above 0"

    def test_options_of_ones_own_are_those_among_the_arguments(self):
        for argument in ("--num-eggs", "--num-eggs=3"):
            assert in_flags("`num_eggs` is above 0", ["train", argument]) == "--num-eggs is above 0"

    def test_a_flag_of_volanos_goes_before_one_of_ones_own(self):
        assert in_flags("`class_name`", ["--class-name", "x"]) == "--class"


class TestExitCodes:
    @pytest.fixture
    def failing(self, monkeypatch):
        """``failing(error)``: a volano whose every command raises that error."""

        def make(error):
            def fails(*_, **__):
                raise error

            monkeypatch.setattr(main, "app", fails)
            monkeypatch.setattr(commands, "register", lambda _: None)

        # The messages are put into flags by the real one.
        monkeypatch.setattr(main.typer.main, "get_command", lambda _: Nothing())
        return make

    def test_a_mistake_is_one_message(self, failing, capsys):
        failing(UsageError("`path` must exist", got="x"))
        assert run(["train"]) == UsageError("x").exit_code == 2
        assert capsys.readouterr().err == "error: PATH must exist; got x.\n"

    def test_with_json_it_is_an_object_too(self, failing, capsys):
        failing(UsageError("It must exist", got="x"))
        assert run(["train", "--json"]) == 2
        captured = capsys.readouterr()
        assert json.loads(captured.out) == {"error": "It must exist; got x.", "kind": "UsageError"}
        assert captured.err == "error: It must exist; got x.\n"

    def test_ctrl_c(self, failing, capsys):
        failing(KeyboardInterrupt())
        assert run(["train", "--json"]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("interrupted before the end; ")
        assert json.loads(captured.out)["kind"] == "KeyboardInterrupt"

    def test_ctrl_c_within_a_command_of_typers(self, monkeypatch, capsys):
        monkeypatch.setattr(main, "app", lambda **_: 130)
        monkeypatch.setattr(commands, "register", lambda _: None)
        assert run(["train"]) == 1
        assert capsys.readouterr().err.startswith("interrupted before the end; ")

    def test_what_an_interrupted_import_raises(self, failing, capsys):
        failing(ImportError("half of it"))
        assert run(["train"], lambda: True) == 1
        assert capsys.readouterr().err.startswith("interrupted before the end; ")

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (PermissionError(13, "Permission denied", "/there"), "/there: Permission denied"),
            (OSError(28, "No space left on device"), "got No space left on device"),
            ("\udcff".encode, "surrogates not allowed"),
            (MemoryError(), "must be enough memory on this machine; got too little"),
            (SystemExit(3), "must return, not end the program; got SystemExit: 3"),
        ],
    )
    def test_what_any_system_refuses_is_a_sentence(self, failing, capsys, error, text):
        if callable(error):
            with pytest.raises(UnicodeEncodeError) as caught:
                error()
            error = caught.value
        failing(error)
        assert run(["train", "--json"]) == 1
        captured = capsys.readouterr()
        assert text in captured.err
        assert "not foreseen" not in captured.err
        assert json.loads(captured.out)["kind"] == "RunError"

    def test_what_was_not_foreseen_says_so(self, failing, capsys):
        failing(ZeroDivisionError("division by zero"))
        assert run(["train"]) == 1
        text = capsys.readouterr().err
        assert text.startswith("error: ZeroDivisionError: division by zero\n")
        assert "--debug shows the whole traceback" in text

    @pytest.mark.parametrize("error", [UsageError("no"), ZeroDivisionError("no")])
    def test_debug_lets_it_through(self, failing, error):
        failing(error)
        with pytest.raises(type(error)):
            run(["train", "--debug"])

    @pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
    def test_a_command_returns_its_code(self, monkeypatch, returned, code):
        monkeypatch.setattr(main, "app", lambda **_: returned)
        monkeypatch.setattr(commands, "register", lambda _: None)
        assert run([]) == code


class Nothing:
    """A command without parameters."""

    params = ()


class TestOptionOfAnother:
    def test_it_is_named(self, capsys):
        assert run(["train", "image", "--depth", "3"]) == 2
        captured = capsys.readouterr()
        assert "No such option" in captured.err
        assert captured.err.endswith("--depth is an option of: text\n")

    def test_several_are_named(self, capsys):
        assert run(["train", "text", "--flip", "yes"]) == 2
        assert capsys.readouterr().err.endswith("--flip is an option of: image, video\n")

    def test_an_option_without_its_value_is_its_own(self, capsys):
        assert run(["train", "image", "--target-columns"]) == 2
        err = capsys.readouterr().err
        assert "requires an argument" in err
        assert "is an option of" not in err

    def test_an_option_of_none_has_no_hint(self, capsys):
        assert run(["train", "image", "--nonsense", "3"]) == 2
        assert "is an option of" not in capsys.readouterr().err

    def test_with_json(self, capsys):
        assert run(["train", "image", "--depth", "3", "--json"]) == 2
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == "UsageError"
        assert "--depth" in found["error"]

    def test_a_command_that_there_is_not(self, capsys):
        assert run(["tarin", "image"]) == 2
        assert "tarin" in capsys.readouterr().err


def test_commands_are_listed_as_a_person_meets_them():
    names = main.typer.main.get_command(app).list_commands(None)
    assert names[:4] == ["train", "resume", "explain", "explore"]
    assert "plans" in names[names.index("doctor") :]


def test_help_names_every_command(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out.splitlines()
    for name in ("train", "resume", "eval", "predict", "export", "report", "doctor"):
        assert any(f" {name} " in line for line in out)
    assert any(line.split()[:2] == ["Usage:", "volano"] for line in out)
    assert "volano train image ./photos --minutes 10" in "".join(out)


def test_the_version_is_printed_without_loading_torch():
    code = (
        "import sys; sys.argv = ['volano', '--version']; from volano.cli import main\ntry: "
        "main.main()\n"
    )
    code += "except SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"volano \d+\.\d+\.\d+\nFalse\n", done.stdout)


def test_the_line_of_a_persons_own_code_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_fault.py").write_text("def fault():\n    {}['key']\n")
    commands.register(app)
    namespace, file = {}, tmp_path / "own_fault.py"
    exec(compile(file.read_text(), str(file), "exec"), namespace)
    monkeypatch.setattr(main, "app", lambda **_: namespace["fault"]())
    monkeypatch.setattr(commands, "register", lambda _: None)
    assert run(["train"]) == 1
    err = capsys.readouterr().err
    assert "error: KeyError: 'key'\nIt was raised by own_fault.py:2, in fault; --debug" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "photos"], "To use data, say for what: image photos, text photos, video photos"),
        (["train", "mine.py"], "To use something in that file, name it: mine.py:NAME"),
        (["train", "mine"], "name it: mine:NAME"),
        (["train", "imagee"], "Nearest: image"),
        (["train", "run"], "continued by: volano resume run"),
        (["eval", "study"], "got study, the folder of a study. Train its best trial first"),
        (["resume", "study"], "Resume it: volano explore --resume study$"),
        (
            ["train", "study"],
            "trained by: volano train --from study, and it is resumed by: volano ",
        ),
        (["train", "image", "fotos"], "Nearest there: .*photos. Omit PATH"),
        (["eval", "rum"], "Nearest there: run. Name the folder that train printed"),
        (["explore", "text", "--epochs", "3"], "an option of volano train text, not of explore"),
    ],
)
def test_what_a_person_may_have_meant_is_said(tmp_path, capsys, words, said):
    (tmp_path / "mine.py").write_text("")
    for folder, name in (("photos", "a.txt"), ("run", "run.json"), ("study", "study.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("{}")
    assert run(words) == 2
    assert re.search(said, " ".join(capsys.readouterr().err.split()))


def test_notices_name_flags_on_the_command_line_alone(capsys):
    text = "`race` runs it in any case"
    with parameters_worded(lambda text: in_flags(text, [])):
        PlainProgress(sys.stderr).on_notice(text)
    PlainProgress(sys.stderr).on_notice(text)
    assert capsys.readouterr().err == f"note: --race runs it in any case\nnote: {text}\n"


def test_the_function_of_a_task_that_raised_is_named(monkeypatch, capsys):
    def fail(**_):
        with called("optimizer"):
            int("x")

    for name, value in (("_place_of_own", lambda error: None), ("app", fail)):
        monkeypatch.setattr(main, name, value)
    monkeypatch.setattr(commands, "register", lambda _: None)
    assert run(["train"]) == 1
    assert "It was raised by the task's optimizer; --debug" in capsys.readouterr().err


def test_an_empty_word_is_not_the_current_folder(capsys):
    for words in (
        ["eval", ""], ["report", "--out", ""], ["explain", "image", ""], ["explain", ""],
        ["train", "image", "--plan="], ["explain", "--out", "", "train.py"],
    ):  # fmt: skip
        assert run(words) == 2
        assert "A path must have a name" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_mistake(monkeypatch, capsys):
    def gone(_):
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904 - as rich does

    monkeypatch.setattr("volano.api.doctor.doctor", gone)
    assert run(["doctor"]) == 1
    assert "error" not in capsys.readouterr().err
