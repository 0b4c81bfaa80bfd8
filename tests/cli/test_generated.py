"""Commands made from declarations."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import typer

from volano.apps.image.options import ImageOptions
from volano.apps.options import DeclaredOptions, option
from volano.cli import options as opt
from volano.cli.generated import (
    GroupByFirst,
    command_of,
    flag_of,
    flag_parameters,
    flags_of,
    function_of,
    given,
    group_of,
    parameters_from,
)


@dataclass(frozen=True, kw_only=True)
class Cooking(DeclaredOptions):
    """Of a scratch application."""

    path: str | None = option(None, "What to cook.", is_path=True)
    minutes: float = option(5.0, "How long.", above=0)
    num_eggs: int | None = option(None, "How many.", at_least=1)
    salt: bool = option(False, "With salt.", flag="--salted")
    kind: str = option("soft", "How they are.", choices=("soft", "hard"))
    width: str = option("auto", "How wide.", choices=("auto", "wide"))
    book: str | None = option(None, "Where it stands.", is_path=True)
    heat: int | None = option(None, "Found out.", is_resolved=True)


def called(command, *arguments):
    """What a command's function is called with."""
    return command.main([*arguments], standalone_mode=False)


@pytest.fixture
def command():
    seen = []

    def cook(**values):
        seen.append(values)
        return 7

    made = command_of(cook, flag_parameters(Cooking), name="cook", help="Cooks.")
    made.seen = seen
    return made


class TestParametersOf:
    def test_what_nobody_gives_is_no_parameter(self):
        names = [parameter.name for parameter in flag_parameters(Cooking)]
        assert names == ["path", "minutes", "num_eggs", "salt", "kind", "width", "book"]
        assert "salt" not in {p.name for p in flag_parameters(Cooking, leave_out=["salt", "other"])}

    def test_flags_are_names_with_dashes_unless_another_is_declared(self):
        flags = {field.name: flag_of(field) for field in Cooking.declared()}
        assert flags["num_eggs"] == "--num-eggs"
        assert flags["salt"] == "--salted"

    def test_none_has_a_default_so_that_what_was_given_is_known(self):
        assert {parameter.default for parameter in flag_parameters(Cooking)} == {None}

    def test_help_writes_options_as_flags(self):
        (patience,) = [one for one in flag_parameters(ImageOptions) if one.name == "patience"]
        assert "with --keep best" in get_args(patience.annotation)[1].help

    def test_help_says_choices_and_defaults(self):
        texts = {
            parameter.name: get_args(parameter.annotation)[1].help
            for parameter in flag_parameters(Cooking)
        }
        assert texts["minutes"] == "How long. Default 5.0."
        assert texts["kind"] == "soft, hard. How they are. Default soft."
        assert texts["width"] == "auto, wide. How wide."
        assert texts["num_eggs"] == "How many."
        assert texts["salt"] == "With salt."

    def test_paths_are_paths_and_the_data_is_an_argument(self):
        by_name = {parameter.name: parameter for parameter in flag_parameters(Cooking, panel="Own")}
        assert get_args(by_name["book"].annotation)[0] == Path | None
        path, own = (get_args(by_name[name].annotation)[1] for name in ("path", "book"))
        assert isinstance(path, typer.models.ArgumentInfo)
        assert isinstance(own, typer.models.OptionInfo)
        assert own.rich_help_panel == "Own"


class TestCommandOf:
    def test_values_arrive_by_name(self, command):
        code = called(
            command, "eggs", "--minutes", "3", "--num-eggs", "2", "--salted", "--kind", "hard"
        )
        assert code == 7
        assert command.seen == [
            {"path": Path("eggs"), "minutes": 3.0, "num_eggs": 2, "salt": True, "kind": "hard",
             "width": None, "book": None}
        ]  # fmt: skip

    def test_nothing_is_given_if_nothing_is_written(self, command):
        called(command)
        assert given(command.seen[0]) == {}

    def test_a_name_that_two_have_is_written_down_once(self):
        first, second = flag_parameters(Cooking)[:2], flag_parameters(Cooking)[1:3]
        made = function_of(lambda **_: 0, [*first, *second])
        assert list(inspect.signature(made).parameters) == ["path", "minutes", "num_eggs"]
        assert made.__annotations__.keys() == {"path", "minutes", "num_eggs"}

    def test_an_unknown_flag_is_refused(self, command):
        with pytest.raises(Exception, match="No such option") as caught:
            called(command, "--nonsense", "3")
        assert any(kind.__name__ == "ClickException" for kind in type(caught.value).__mro__)
        assert command.seen == []


def test_templates_are_read_with_their_annotations():
    names = [parameter.name for parameter in parameters_from(opt.shared_options)]
    assert names == ["json", "debug"]
    assert all(
        getattr(parameter.annotation, "__metadata__", None)
        for parameter in parameters_from(opt.plan_options)
    )


def test_what_was_given():
    values = {"a": 0, "b": None, "c": False, "d": "", "e": 3}
    assert given(values) == {"a": 0, "c": False, "d": "", "e": 3}
    assert given(values, ["e", "b", "z"]) == {"e": 3}
    assert given(values, []) == {}


class Kitchen(GroupByFirst):
    """What the first argument names."""

    shown = ("eggs", "soup")
    asked: list = []  # noqa: RUF012 - emptied by the fixture

    def named(self, name):
        def cook(**values):
            self.asked.append((name, values))
            return 0

        leave_out = () if name == "eggs" else ("num_eggs",)
        return command_of(
            cook, flag_parameters(Cooking, leave_out=leave_out), name=name, help="Cooks."
        )


def house():
    """A command line of two commands."""
    app = typer.Typer(add_completion=False)
    app.add_typer(group_of(Kitchen, "Cooks.", "WHAT"), name="cook")
    app.command("wait")(lambda: 0)
    return app


class TestGroupByFirst:
    @pytest.fixture
    def kitchen(self):
        Kitchen.asked.clear()
        app = house()
        return lambda *arguments: app(args=["cook", *arguments], standalone_mode=False)

    def test_the_name_decides_which_options_there_are(self, kitchen):
        kitchen("eggs", "--num-eggs", "2")
        kitchen("soup", "--minutes", "20")
        assert [(name, given(values)) for name, values in Kitchen.asked] == [
            ("eggs", {"num_eggs": 2}),
            ("soup", {"minutes": 20.0}),
        ]
        with pytest.raises(Exception, match="No such option"):
            kitchen("soup", "--num-eggs", "2")

    def test_any_name_may_stand_there(self, kitchen):
        kitchen("my/file.py:dish", "pot")
        assert Kitchen.asked[0][0] == "my/file.py:dish"
        assert Kitchen.asked[0][1]["path"] == Path("pot")

    def test_an_option_in_its_place_stands_for_no_name(self, kitchen):
        kitchen("--minutes", "3")
        assert [(name, given(values)) for name, values in Kitchen.asked] == [("", {"minutes": 3.0})]

    def test_help_lists_those_that_are_shown(self, kitchen, capsys):
        kitchen("--help")
        text = capsys.readouterr().out
        assert "eggs" in text
        assert "soup" in text
        assert Kitchen.asked == []

    def test_a_command_is_called_as_it_was_named(self):
        group = typer.main.get_command(house()).get_command(None, "cook")
        assert group.list_commands(None) == ["eggs", "soup"]
        assert group.get_command(None, "stew").name == "stew"

    def test_a_group_says_what_its_names_stand_for(self):
        with pytest.raises(NotImplementedError):
            GroupByFirst(name="x").named("eggs")


class TestFlagsOf:
    def test_flags_of_a_command_and_names_of_arguments(self, command):
        flags = flags_of(command)
        assert flags["num_eggs"] == "--num-eggs"
        assert flags["salt"] == "--salted"
        assert flags["path"] == "PATH"

    def test_the_first_that_has_a_name_says_its_flag(self):
        one = SimpleNamespace(params=[SimpleNamespace(name="a", opts=["-a", "--first"])])
        two = SimpleNamespace(params=[SimpleNamespace(name="a", opts=["--second"]),
                                      SimpleNamespace(name="b", opts=["b"])])  # fmt: skip
        group = SimpleNamespace(
            params=[],
            list_commands=lambda _: ["one", "two"],
            get_command=lambda _, name: {"one": one, "two": two}[name],
        )
        assert flags_of(group) == {"a": "--first", "b": "B"}


def test_every_option_of_an_application_can_be_written_on_a_command_line():
    made = command_of(lambda **_: 0, flag_parameters(ImageOptions), name="x", help="y")
    flags = flags_of(made)
    assert flags.keys() >= ImageOptions.given_names()


def test_the_help_of_a_flag_names_no_type(command, capsys):
    called(command, "--help")
    lines = capsys.readouterr().out.splitlines()
    assert not any("bool" in line for line in lines)
    assert any("--num-eggs" in line and "int" in line for line in lines)
