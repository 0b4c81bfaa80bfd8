"""Applications by name, by reference and by a run's folder."""

import pytest

from volano.apps import kinds
from volano.apps.application import Application
from volano.apps.image.options import ImageOptions
from volano.apps.kinds import (
    APPLICATIONS,
    application_class,
    application_of_run,
    choose_application,
    is_application,
    load,
    own_application,
    reference_to,
)
from volano.apps.options import Options
from volano.apps.text.classify.options import ClassifyOptions
from volano.apps.text.options import TextOptions
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.errors import UsageError
from volano.training import RunFolder

OWN = """
import dataclasses
import volano

@dataclasses.dataclass(frozen=True, kw_only=True)
class DotOptions(volano.Options):
    width: int = volano.option(3, "How wide.", at_least=1)

class Dots(volano.Application):
    kind = "dots"
    options_type = DotOptions

task = 7
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The reference of a person's own application."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dots.py").write_text(OWN)
    return "dots.py:Dots"


@pytest.mark.parametrize("kind", [*APPLICATIONS, "classify", "classify-clips"])
def test_every_kind_has_its_application(kind):
    found = application_class(kind)
    assert issubclass(found, Application)
    # The options that the command line is made of are those that the application takes.
    own = {"classify": ClassifyOptions, "classify-clips": ClipClassifyOptions}
    expected = {**APPLICATIONS, **own}[kind]
    assert found.options_type is expected


@pytest.mark.parametrize("kind", ["cats", "", "Image", "json:dumps", "json:__doc__"])
def test_what_is_no_application_is_refused(kind):
    with pytest.raises(UsageError, match="one that this version knows") as caught:
        application_class(kind)
    assert "Say image, text, video, or module:Class" in caught.value.remedy


def test_a_name_is_a_text():
    assert is_application("image")
    assert not any(map(is_application, ("classify", "cats", None, 3, Application)))


class TestOwn:
    def test_by_reference(self, own):
        found = own_application(own)
        assert found.kind == "dots"
        assert application_class(own) is found

    def test_something_else_of_the_file_is_none(self, own):
        assert own_application("dots.py:task") is None
        assert own_application("dots.py:DotOptions") is None

    def test_what_cannot_be_imported_is_told(self, own):
        with pytest.raises(UsageError, match="nothing"):
            own_application("dots.py:nothing")

    def test_its_options_are_its_own(self, own):
        application, options = choose_application(own, {"width": 5, "minutes": None})
        assert (application.kind, options.width, options.minutes) == ("dots", 5, None)
        with pytest.raises(UsageError, match="`size` is no option of the application dots"):
            choose_application(own, {"size": "thin"})
        assert choose_application(application, {"width": 2})[1].width == 2

    def test_the_reference_leads_back_to_it(self, own, monkeypatch):
        found = own_application(own)
        assert own_application(reference_to(found)).__qualname__ == "Dots"

    def test_one_of_an_importable_module_is_named_by_it(self, own, monkeypatch):
        found = own_application(own)
        monkeypatch.setattr(found, "__module__", "mine.tables")
        assert reference_to(found) == "mine.tables:Dots"

    def test_volanos_own_are_named_as_on_the_command_line(self):
        assert reference_to(application_class("image")) == "image"

    def test_one_of_a_program_is_named_by_its_file(self, own, tmp_path, monkeypatch):
        found = own_application(own)
        monkeypatch.setattr(found, "__module__", "__main__")
        monkeypatch.setattr(kinds.inspect, "getsourcefile", lambda _: str(tmp_path / "dots.py"))
        assert reference_to(found) == f"{tmp_path / 'dots.py'}:Dots"
        # In an interactive session there is no file.
        monkeypatch.setattr(kinds.inspect, "getsourcefile", lambda _: None)
        assert reference_to(found) == "__main__:Dots"

    def test_one_within_a_function_keeps_its_whole_name(self):
        class Inner(Application):
            kind = "inner"

        assert reference_to(Inner) == (
            f"{__name__}:TestOwn.test_one_within_a_function_keeps_its_whole_name.<locals>.Inner"
        )


class TestOptions:
    def test_values_that_were_not_given_are_left_out(self):
        application, options = choose_application("image", {"size": None, "seed": 3})
        assert application is application_class("image")
        assert options == ImageOptions(seed=3)

    @pytest.mark.parametrize("classify", [False, None])
    def test_text_is_written_unless_it_is_classified(self, classify, tmp_path):
        application, options = choose_application("text", {"classify": classify})
        assert (application.kind, type(options)) == ("text", TextOptions)

    def test_with_classify_it_has_other_options(self, tmp_path):
        given = {"classify": True, "path": str(tmp_path)}
        application, options = choose_application("text", given)
        assert application is application_class("classify")
        assert isinstance(options, ClassifyOptions)
        assert given["classify"] is True  # the caller's is the caller's
        with pytest.raises(UsageError, match="no option of the text application with `classify`"):
            choose_application("text", {**given, "depth": 2})

    def test_an_unknown_option_gets_the_nearest(self):
        with pytest.raises(UsageError, match="`siz` is no option of the image application.*`size`"):
            choose_application("image", {"siz": "thin"})

    def test_options_are_checked_before_an_application_is_loaded(self, monkeypatch):
        monkeypatch.setattr(kinds, "application_class", None)  # would fail
        with pytest.raises(UsageError, match="`size` must be one of"):
            choose_application("image", {"size": "huge"})


class TestOfARun:
    def folder(self, tmp_path, source):
        folder = RunFolder(tmp_path)
        folder.write_json("run.json", {"source": source, "status": "running"})
        return folder

    @pytest.mark.parametrize("source", [None, {}, *({"kind": kind} for kind in (
        "python", "reference", "trial"))])  # fmt: skip
    def test_a_task_of_ones_own_has_none(self, tmp_path, source):
        folder = self.folder(tmp_path, source)
        assert application_of_run(folder) is None
        with pytest.raises(UsageError, match="must be of an application.*model.safetensors"):
            load(folder)

    @pytest.mark.parametrize(
        ("source", "kind"),
        [
            ({"kind": "image"}, "image"),
            ({"kind": "text"}, "text"),
            ({"kind": "text", "goal": "classes"}, "classify"),
            ({"kind": "video", "goal": None}, "video"),
        ],
    )
    def test_kind_and_goal_name_it(self, tmp_path, source, kind):
        assert application_of_run(self.folder(tmp_path, source)) is application_class(kind)

    def test_one_that_is_no_longer_there_is_told(self, tmp_path):
        with pytest.raises(UsageError):
            application_of_run(self.folder(tmp_path, {"kind": "nowhere:Dots"}))

    def test_a_run_that_has_not_ended_is_not_loaded(self, tmp_path):
        with pytest.raises(Exception, match="running|ended|finished"):
            load(self.folder(tmp_path, {"kind": "image"}))


def test_options_of_all_have_those_that_every_run_has():
    assert all(issubclass(options, Options) for options in APPLICATIONS.values())
