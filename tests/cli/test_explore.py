"""``volano explore`` and ``volano train --from``."""

import json

import pytest

from volano.cli import commands
from volano.cli.main import app, in_flags

BUILD = "study.builds:digits_mlp"


@pytest.fixture
def volano(command):
    return command


def test_a_study_from_the_first_command_to_the_training_of_its_best(volano, tmp_path):
    code, out, err = volano(
        "explore", BUILD, "--trials", "6", "--rungs", "2", "--out", "study", "--nproc", "1",
        "--device", "cpu", "--verify", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "6 trials, minimize loss, TPESampler, rungs at 33%, 100% of the run, 1 worker" in err
    assert "study: study" in out
    assert "report: study/report.html" in out
    assert "volano train --from study" in out
    assert "lr=" in out
    code, out, _ = volano("train", "--from", "study", "--no-plan", "--out", "run", "--json")
    assert code == 0
    record = json.loads(out.splitlines()[-1])
    assert record["status"] == "finished"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["source"]["kind"] == "trial"


def test_json_is_one_object(volano):
    code, out, _ = volano(
        "explore",
        BUILD,
        "--trials",
        "3",
        "--rungs",
        "1",
        "--out",
        "study",
        "--json",
        "--nproc",
        "1",
    )
    assert code == 0
    record = json.loads(out)
    assert record["counts"]["complete"] == 3
    assert record["verified"] is None
    assert record["best"]["params"].keys() == {"lr", "dropout"}


def test_its_page_is_written_again(volano, tmp_path):
    volano("explore", BUILD, "--trials", "3", "--rungs", "1", "--out", "study", "--nproc", "1")
    (tmp_path / "study" / "report.html").unlink()
    code, out, _ = volano("report", "study")
    assert code == 0
    assert out == "report: study/report.html\n"
    assert (tmp_path / "study" / "report.html").is_file()


def test_a_study_goes_on_for_more_trials(volano):
    volano("explore", BUILD, "--trials", "3", "--rungs", "1", "--out", "study", "--nproc", "1")
    code, out, _ = volano("explore", "--resume", "study", "--trials", "5", "--json", "--nproc", "1")
    assert code == 0
    assert json.loads(out)["counts"]["asked"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["explore", "images"],
            "What to explore must be an application, or a function of a trial; got 'images'",
        ),
        (["explore", BUILD, "photos"], "Got unexpected extra"),
        (["explore", BUILD, "--space", "s.json"], "No such option: --space"),
        (
            ["explore", BUILD, "--direction", "up"],
            "--direction must be 'minimize' or 'maximize'; got 'up'",
        ),
        (["explore", BUILD, "--trials", "0"], "--trials must be a whole number above 0"),
        (["explore", "--resume", "nothing"], "A study's folder must hold study.json; got nothing"),
        (["explore", "image", "./nowhere"], "nowhere"),
        (
            ["explore", "image", "--minutes", "0.1"],
            "leave each whole trial 0.2 s at least; got 0.1 for 64 trials",
        ),
        (["explore", "image", "--resume", "s"], "No such option: --resume"),
        (["explore", "--resume", "s", "--space", "x.json"], "No such option: --space"),
        (["train", "--from", "nothing"], "A study's folder must hold study.json"),
        (["train", "image", "--trial", "3"], "No such option: --trial"),
        (["train", "image", "--from", "nothing"], "must name a pretrained network"),
    ],
)
def test_what_cannot_be_meant_is_one_message(volano, arguments, message):
    code, _, err = volano(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_parameters_in_messages_are_written_as_flags():
    commands.register(app)
    text = "Name another with `out`, or continue with `resume` and `batch_size`; `valid` is `1 2`"
    assert in_flags(text, []) == (
        "Name another with --out, or continue with --resume and --batch-size; `valid` is `1 2`"
    )
    assert in_flags("`eggs`", ["--eggs=3"]) == "--eggs"
