"""A fourth kind of application, in one folder of a person's own: every verb works with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import volano
from volano.cli.main import run as run_command

APPLICATION = (
    f"{Path(__file__).parents[2] / 'examples' / 'table' / 'application.py'}:TableApplication"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Diabetes progression from ten figures of a patient: a table of scikit-learn's, with a row
    that is none."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(as_frame=True)
    path = tmp_path_factory.mktemp("table")
    bunch.frame.to_csv(path / "patients.csv", index=False)
    with (path / "patients.csv").open("a") as file:
        file.write("no,numbers,here,,,,,,,,\n")
    return path


@pytest.fixture(scope="module")
def run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = [
            "train",
            APPLICATION,
            "patients.csv",
            "--target",
            "target",
            "--epochs",
            "20",
            "--no-plan",
        ]
        assert run_command([*arguments, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_it_trains_and_says_how_well(run):
    record = json.loads((run / "run.json").read_text())
    assert record["metrics"]["test_r2"] > 0.3  # a linear regression explains about half
    assert record["source"]["kind"] == APPLICATION
    assert record["source"]["dials"]["target"] == "target"
    assert any("left out: line 444" in notice for notice in record["notices"])
    assert len((run / "quarantine.jsonl").read_text().splitlines()) == 1
    assert "R2" not in record["notices"]
    assert (run / "report.html").is_file()


def test_its_options_are_on_the_command_line_alone(capsys):
    assert run_command(["train", APPLICATION, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--target" in text
    assert "--image-size" not in text
    assert run_command(["train", APPLICATION, "x.csv", "--width", "0"]) == 2
    assert "--width must be a whole number from 1 to 4,096; got 0" in capsys.readouterr().err


def test_it_evaluates_predicts_and_is_loaded(run, folder, capsys):
    assert run_command(["eval", str(run), "--trust", "--json"]) == 0
    expected = json.loads((run / "run.json").read_text())["metrics"]["test_r2"]
    assert json.loads(capsys.readouterr().out)["r2"] == pytest.approx(expected, rel=1e-5)
    table = (folder / "patients.csv").read_text()
    (folder / "patients.csv").write_text(table + "1,2,3,4,5,6,7,8,9,10,11\n")
    assert volano.load(run, trust=True).evaluate()["r2"] == pytest.approx(expected, rel=1e-5)
    (folder / "patients.csv").write_text(table)
    assert (
        run_command(
            [
                "predict",
                str(run),
                "--trust",
                str(folder / "patients.csv"),
                "--csv",
                str(folder / "out.csv"),
            ]
        )
        == 0
    )
    assert len((folder / "out.csv").read_text().splitlines()) == 443
    model = volano.load(run, trust=True)
    assert abs(model.predict(folder / "patients.csv")[0].value - 151) < 300


def test_it_explains_resumes_and_is_explored(run, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert run_command(["resume", str(run), "--trust"]) == 2
    assert "which is finished" in capsys.readouterr().err
    explain = ["explain", APPLICATION, "patients.csv", "--epochs", "2", "--device", "cpu"]
    assert run_command([*explain, "--no-compile", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "FITS"
    explore = [
        "explore",
        APPLICATION,
        "patients.csv",
        "--trials",
        "3",
        "--rungs",
        "1",
        "--minutes",
        "0.4",
        "--nproc",
        "1",
    ]
    assert run_command([*explore, "--out", "study", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["complete"] == 3
    assert json.loads((folder / "study" / "study.json").read_text())["source"]["space"].keys() == {
        "lr"
    }


def test_a_table_that_cannot_be_trained_on(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert run_command(["train", APPLICATION, str(tmp_path / "t.csv"), "--target", "c"]) == 1
    assert "--target must be a column of the table; got c" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["eval", "predict", "export", "generate", "resume"])
def test_a_folder_alone_runs_no_code(verb, tmp_path, capsys):
    """What a stranger's folder names is not imported; neither from there nor from here."""
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath(__file__ + '.ran').touch()")
    folder = tmp_path / "run"
    folder.mkdir()
    source = {"kind": f"{tmp_path / 'evil.py'}:App", "dials": {}}
    (folder / "run.json").write_text(json.dumps({"schema_version": 1, "source": source}))
    (folder / "task.json").write_text("{}")
    (folder / "model.safetensors").touch()
    files = [str(folder)] if verb == "predict" else []
    assert run_command([verb, str(folder), *files]) == 2
    assert re.search("only if you trust it.*Give --trust", capsys.readouterr().err)
    assert not (tmp_path / "evil.py.ran").exists()
