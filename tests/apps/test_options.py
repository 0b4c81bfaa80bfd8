"""One declaration of an option: its checks, its errors, its JSON, and what a study tries."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from volano.apps.image.options import SIZES, ImageOptions
from volano.apps.kinds import APPLICATIONS
from volano.apps.options import DeclaredOptions, Options, option, table_of, takes_options
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.options import TextGenerationOptions, TextOptions
from volano.apps.video.options import VideoGenerationOptions, VideoOptions
from volano.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cooking(DeclaredOptions):
    """Of a scratch application."""

    minutes: float = option(5.0, "How long.", above=0, unit="min")
    eggs: int | None = option(None, "How many.", at_least=1, at_most=12)
    pans: int = option(2, "In how many.", multiple_of=2, at_least=2, at_most=8)
    salt: bool = option(True, "Whether with salt.")
    kind: str = option("soft", "How they are.", choices=("soft", "hard"))
    book: str | None = option(None, "Where it stands.", is_path=True)
    heat: int | None = option(None, "Found out.", is_resolved=True)


class TestChecks:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"minutes": 0}, r"`minutes` must be a number above 0 min; got 0\."),
            ({"minutes": float("nan")}, "`minutes` must be a number above 0 min; got nan"),
            ({"minutes": float("inf")}, "`minutes` must be a number"),
            ({"minutes": "long"}, "`minutes` must be a number above 0 min; got 'long'"),
            ({"minutes": None}, "`minutes` must be a number"),
            ({"minutes": 10**400}, "`minutes` must be a number above 0 min; got 1000"),
            ({"eggs": 13}, "`eggs` must be a whole number from 1 to 12; got 13"),
            ({"eggs": 1.5}, "`eggs` must be a whole number from 1 to 12; got 1.5"),
            ({"eggs": True}, "`eggs` must be a whole number"),
            ({"pans": 3}, "`pans` must be a multiple of 2 from 2 to 8; got 3"),
            ({"salt": 1}, "`salt` must be True or False; got 1"),
            ({"kind": "raw"}, "`kind` must be one of soft, hard; got 'raw'"),
            ({"book": 7}, "`book` must be a path; got 7"),
            ({"book": ""}, "`book` must be a path; got ''"),
        ],
    )
    def test_what_cannot_be(self, given, message):
        with pytest.raises(UsageError, match=message):
            Cooking(**given)

    def test_what_can_be(self):
        options = Cooking(minutes=3, eggs=12, book=Path("x"))
        assert (options.minutes, options.eggs, options.book) == (3, 12, "x")

    def test_an_unknown_name_gets_the_nearest(self):
        with pytest.raises(UsageError, match=r"`egs` is no option of breakfast. Like it: `eggs`"):
            Cooking.of({"egs": 2}, "breakfast")
        with pytest.raises(UsageError, match="`heat` is no option of breakfast"):  # nobody gives it
            Cooking.of({"heat": 2}, "breakfast")

    def test_a_path_of_data_is_absolute_and_of_files_to_write_is_as_given(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        assert ImageOptions(path="photos").path == str(tmp_path / "photos")
        assert VideoGenerationOptions(out="made").out == "made"

    def test_a_length_is_given_once(self):
        with pytest.raises(UsageError, match="given either as `minutes` or as `epochs`; got both"):
            TextOptions(minutes=1, epochs=1)

    def test_options_that_exclude_each_other(self):
        with pytest.raises(UsageError, match="`size` can only choose among Volano's networks"):
            ImageOptions(size="thin", model="a:b")
        with pytest.raises(UsageError, match="`image_size`, `fps` and `fit` must come with clips"):
            VideoOptions(fps=8)
        with pytest.raises(UsageError, match="got one with the embedded sample"):
            VideoOptions(fit="pad")
        with pytest.raises(UsageError, match="`classify` needs a path of labelled texts"):
            ClassifyOptions()

    @pytest.mark.parametrize(
        ("given", "name"),
        [
            ({"temperature": -1}, "temperature"), ({"temperature": float("nan")}, "temperature"),
            ({"top_k": 0}, "top_k"), ({"top_p": 0}, "top_p"), ({"top_p": 1.5}, "top_p"),
            ({"seed": -1}, "seed"), ({"tokens": 0}, "tokens"),
        ],
    )  # fmt: skip
    def test_of_writing_text(self, given, name):
        with pytest.raises(UsageError, match=f"`{name}` must be a"):
            TextGenerationOptions(**given)


class TestJson:
    @pytest.mark.parametrize(
        "options",
        [
            ImageOptions(size="thin", num_steps=7, in_files=True),
            TextOptions(depth=3, path="/x"),
            VideoOptions(flip="yes"),
        ],
        ids=["image", "text", "video"],
    )
    def test_it_comes_back(self, options):
        assert type(options).from_json(options.to_json()) == options

    def test_what_a_run_does_not_keep(self):
        assert {"minutes", "classify"} & TextOptions(minutes=1).to_json().keys() == set()


class TestOneLineForAnOption:
    """A field in an application's options is an option everywhere."""

    def test_on_the_command_line_in_python_and_in_the_table(self):
        from volano.cli.generated import flag_of, flag_parameters

        names = {parameter.name for parameter in flag_parameters(Cooking)}
        assert names == {"minutes", "eggs", "pans", "salt", "kind", "book"}
        assert flag_of(Cooking.declared()[1]) == "--eggs"
        assert "| `eggs` | a whole number from 1 to 12 |  | How many. |" in table_of(Cooking)
        assert "heat" not in table_of(Cooking)

        @takes_options(Cooking)
        def cook(self, **options):
            pass

        assert list(inspect.signature(cook).parameters) == [
            "self",
            "minutes",
            "eggs",
            "pans",
            "salt",
            "kind",
            "book",
        ]

    @pytest.mark.parametrize("kind", APPLICATIONS)
    def test_every_application_says_of_each_what_it_is(self, kind):
        for field in APPLICATIONS[kind].declared():
            assert field.declaration.help.endswith("."), field.name
            assert field.rule.startswith("must be ")
            if field.default is not None:
                assert field.check(field.default) == field.default

    def test_every_option_is_declared_in_one_file(self):
        source = Path(sys.modules["volano"].__file__).parent
        texts = {path: path.read_text() for path in source.rglob("*.py")}
        # Each application's own.
        common = set(Options.given_names()) | {
            "batch_size",
            "flip",
            "from_",
            "tune",
            "image_size",
            "fit",
            "fps",
            "target",
            "target_columns",
            "classify",
            "num_frames",
        }
        for options in APPLICATIONS.values():
            for name in options.given_names() - common:
                declared = [
                    path
                    for path, text in texts.items()
                    if f" {name}: " in text and "= option(" in text
                ]
                assert len(declared) == 1, (name, declared)
                flag = f'"--{name.replace("_", "-")}"'
                assert not [
                    path for path, text in texts.items() if flag in text and path not in declared
                ], name

    def test_sizes_are_those_of_the_network(self):
        from volano.apps.image.network import FIRST_WIDTH

        assert tuple(FIRST_WIDTH) == SIZES

    def test_they_load_no_torch(self):
        code = (
            "import sys; from volano.apps.kinds import APPLICATIONS; print('torch' in sys.modules)"
        )
        assert (
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True
            ).stdout.strip()
            == "False"
        )


def test_the_words_of_a_command_are_what_differs_from_the_defaults():
    given = ImageOptions(path="/photos", size="wide", image_size=32, minutes=2.0)
    assert given.words(leave_out=("minutes",)) == [
        "/photos", "--size", "wide", "--image-size", "32"
    ]  # fmt: skip
    assert ImageOptions().words() == []


def test_language_models_of_earlier_runs_have_no_target():
    dials = {k: v for k, v in TextOptions().to_json().items() if not k.startswith("target")}
    assert TextOptions.from_json(dials) == TextOptions()
