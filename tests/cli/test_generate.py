"""``volano generate``: whose options there are, and what is printed."""

import inspect
import json
from types import SimpleNamespace

import pytest

from volano.apps import kinds
from volano.apps.text.options import TextGenerationOptions
from volano.apps.video.options import VideoGenerationOptions
from volano.cli import generate as module
from volano.cli.generate import generate_function
from volano.errors import UsageError
from volano.training import RunFolder


def test_it_has_the_options_of_all_applications_once():
    names = list(inspect.signature(generate_function()).parameters)
    assert names[:2] == ["run", "device"]
    assert names[-2:] == ["json", "debug"]
    both = TextGenerationOptions.given_names() | VideoGenerationOptions.given_names()
    assert both <= set(names)
    assert len(set(names)) == len(names)


class Written:
    """A text that comes in pieces."""

    prompt, notices = "Once", ("it is short",)

    def __iter__(self):
        yield from (" upon", " a time")

    def figures(self):
        return {"num_tokens": 2, "tokens_per_second": 1234.5, "is_ended": True, "text": "all"}


class Clips:
    """What a model of clips says."""

    generate_options = VideoGenerationOptions

    def __init__(self):
        self.asked = []

    def generate(self, **given):
        self.asked.append(given)
        return {"clips": 2, "notices": ["so it is"]}

    def describe_generated(self, generated):
        return [f"{generated['clips']} clips"]


@pytest.fixture
def model(monkeypatch, tmp_path):
    """``model(one)``: the run's model is that one; returns the command's function for its run."""
    folder = RunFolder(tmp_path)
    folder.write_json("run.json", {"schema_version": 1, "source": {"kind": "video"}})
    devices = []
    monkeypatch.setattr(
        kinds, "load", lambda _, device, trust=False: devices.append(device) or made[0]
    )
    made = []

    def use(one):
        made[:] = [one]
        names = inspect.signature(generate_function()).parameters
        nothing = dict.fromkeys(names) | {"json": False, "debug": False}
        return lambda **values: module._generate(**{**nothing, "run": tmp_path, **values})

    use.devices = devices
    return use


def test_only_what_was_given_reaches_the_model(model, capsys):
    clips = Clips()
    assert model(clips)(clips=2, seed=0) == 0
    assert clips.asked == [{"clips": 2, "seed": 0}]
    captured = capsys.readouterr()
    assert captured.out == "2 clips\n"
    assert captured.err.splitlines()[1:] == ["note: so it is"]
    assert captured.err.splitlines()[0].endswith(": loading PyTorch ...")


def test_an_object_for_programs(model, capsys):
    model(Clips())(json=True)
    assert json.loads(capsys.readouterr().out) == {"clips": 2, "notices": ["so it is"]}


def test_an_option_of_another_application_is_refused(model):
    clips = Clips()
    with pytest.raises(UsageError, match="`prompt` is no option of what .* can generate"):
        model(clips)(prompt="Once")
    assert clips.asked == []


def test_a_text_streams(model, capsys):
    one = SimpleNamespace(generate=lambda **_: Written(), generate_options=TextGenerationOptions)
    assert model(one)(prompt="Once") == 0
    captured = capsys.readouterr()
    assert captured.out == "Once upon a time\n"
    assert captured.err.splitlines()[1:] == [
        "note: it is short",
        "2 tokens, 1,234 a second; the model ended the document",
    ]
    model(one)(json=True)
    assert json.loads(capsys.readouterr().out)["text"] == "all"


def test_a_model_that_makes_nothing_says_so(model):
    with pytest.raises(UsageError, match="application that can: text, video"):
        model(SimpleNamespace(generate_options=None))()


def test_where_it_runs_is_the_applications_choice_unless_it_is_given(model):
    model(Clips())()
    model(Clips())(device="cpu")
    expected = kinds.application_class("video").generate_device
    assert model.devices == [expected, "cpu"]
