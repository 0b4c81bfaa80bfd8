"""Folders from strangers: they run no code, and nothing is written beyond them."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import volano
from volano.apps.study_build import build_of, task_of_trial
from volano.cli.main import run as run_command
from volano.errors import UsageError, VolanoError
from volano.running import trust

OWN = """
import functools, pathlib, torch, volano

pathlib.Path(__file__).with_name("ran").touch()
data = torch.utils.data.TensorDataset(torch.arange(8.0)[:, None], torch.arange(8.0)[:, None])

def objective(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()

def make():
    return torch.nn.Linear(1, 1)

task = volano.Task(
    model=make, objective=objective, data=data, batch_size=4, duration="2st",
    optimizer=functools.partial(torch.optim.SGD, lr=0.01),
)

def net(num_classes, in_channels, image_size):
    inputs = in_channels * image_size**2
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, num_classes))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a person's own code, before they have said anything in this process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.setattr(trust, "_TRUSTED", set())
    return tmp_path


@pytest.fixture
def stopped(here, monkeypatch):
    """A run of the person's own task, as another process finds it."""
    options = {"plan": volano.Plan.baseline("cpu"), "out": here / "run"}
    volano.train("own.py:task", **options)
    change(here / "run" / "run.json", status="stopped")
    forget(here, monkeypatch)
    return here / "run"


def forget(here, monkeypatch):
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.setattr("volano.running.references._LOADED_FILES", {})
    (here / "ran").unlink(missing_ok=True)


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


class TestCode:
    def test_a_run_is_resumed_with_the_same_code_named(self, stopped, capsys):
        assert run_command(["resume", str(stopped)]) == 2
        assert "--code own.py:task" in capsys.readouterr().err
        assert not (stopped.parent / "ran").exists()
        assert run_command(["resume", str(stopped), "--code", "own.py:other"]) == 2
        assert not (stopped.parent / "ran").exists()
        assert run_command(["resume", str(stopped), "--code", "own.py:task"]) == 0
        assert (stopped.parent / "ran").exists()

    def test_or_with_its_code_trusted(self, stopped):
        assert volano.resume(stopped, trust=True).status == "finished"

    def test_a_run_that_was_changed_names_other_code(self, stopped, here):
        shutil.copy(here / "own.py", stopped / "evil.py")
        source = {"kind": "reference", "reference": f"{stopped}/evil.py:task"}
        change(stopped / "run.json", source=source)
        with pytest.raises(UsageError, match=r"evil\.py:task in .*run\. Give `trust`"):
            volano.resume(stopped, code="own.py:task")
        assert not (stopped / "ran").exists()

    @pytest.mark.parametrize("place", ["image.json", "run.json"])
    def test_a_network_is_named_in_two_files(self, here, monkeypatch, place):
        options = {"epochs": 0.1, "plan": volano.Plan.baseline("cpu"), "out": here / "run"}
        volano.train("image", model="own.py:net", **options)
        forget(here, monkeypatch)
        monkeypatch.setattr(trust, "_TRUSTED", set())
        with pytest.raises(UsageError, match="own.py:net in "):
            volano.load(here / "run")
        assert not (here / "ran").exists()
        model = volano.load(here / "run", code="own.py:net")
        (here / "other.py").write_text(OWN)
        record = json.loads((here / "run" / "run.json").read_text())
        if place == "run.json":
            record["source"]["dials"]["model"] = "other.py:net"
            change(here / "run" / "run.json", **record)
            with pytest.raises(UsageError, match="other.py:net in "):
                model.evaluate()
        else:
            change(here / "run" / "image.json", model_reference="other.py:net")
            with pytest.raises(UsageError, match="other.py:net in "):
                volano.load(here / "run")
            trusted = volano.load(here / "run", trust=True)
            assert trusted.evaluate()["accuracy"] == model.evaluate()["accuracy"]

    @pytest.mark.parametrize("source", [
        {"kind": "reference", "reference": "own.py:build"},
        {"kind": "own.py:App", "dials": {}},
        {"kind": "image", "dials": {"model": "own.py:net"}},
    ])  # fmt: skip
    def test_a_study_names_code_too(self, here, source):
        with pytest.raises(UsageError, match=r"own.py:\w+ in s\. .*`build`"):
            build_of(source, here.relative_to(here) / "s")
        assert not (here / "ran").exists()

    def test_a_trial_of_a_study_runs_nothing_by_itself(self, here, capsys):
        (here / "s").mkdir()
        facts = {
            "schema_version": 1, "status": "finished", "settings": {"direction": "minimize"},
            "source": {"kind": "reference", "reference": "own.py:build"},
        }  # fmt: skip
        (here / "s" / "study.json").write_text(json.dumps(facts))
        events = (
            {"event": "asked", "trial": 0, "params": {}},
            {"event": "ended", "trial": 0, "state": "complete", "reason": None},
        )
        (here / "s" / "trials.jsonl").write_text("\n".join(map(json.dumps, events)))
        with pytest.raises(UsageError, match="own.py:build in "):
            task_of_trial("s", 0)
        assert run_command(["train", "--from", "s", "--trial", "0"]) == 2
        assert "Give --trust" in (said := capsys.readouterr().err)
        assert "MODULE:BUILD own.py:build" in said
        assert run_command(["explore", "--resume", "s"]) == 2
        assert "Give --trust" in capsys.readouterr().err
        assert not (here / "ran").exists()


@pytest.fixture
def home(here):
    """Files of the person's, to which links in a stranger's folder lead."""
    (here / "home").mkdir()
    for number in range(12):
        (here / "home" / str(number)).write_text("precious")
    return here / "home"


def untouched(home):
    texts = {path.read_text() for path in home.iterdir() if path.is_file()}
    return texts == {"precious"} and len(list(home.iterdir())) == 12


class TestLinks:
    def test_a_page_is_written_into_the_folder(self, stopped, home):
        for number, name in enumerate(("report.html", "report.html.partial", "run.partial")):
            (stopped / name).unlink(missing_ok=True)
            (stopped / name).symlink_to(home / str(number))
        assert run_command(["report", str(stopped)]) == 0
        assert not (stopped / "report.html").is_symlink()
        assert untouched(home)

    def test_a_run_goes_on_in_its_folder_or_not_at_all(self, stopped, home):
        names = ("owner.json", "run.partial", "metrics.partial", "model.partial", "report.html")
        for number, name in enumerate(names):
            (stopped / name).unlink(missing_ok=True)
            (stopped / name).symlink_to(home / str(number))
        (stopped / "metrics.jsonl").rename(stopped / "metrics")
        (stopped / "metrics.jsonl").symlink_to(home / "6")
        (stopped / "model.safetensors").unlink(missing_ok=True)
        (stopped / "model.safetensors").symlink_to(home / "7")
        assert run_command(["resume", str(stopped), "--trust"]) == 0
        assert untouched(home)
        assert (stopped / "model.safetensors").stat().st_nlink == 1

    @pytest.mark.parametrize("name", [".lock", "checkpoints"])
    def test_what_it_needs_itself_is_no_link(self, stopped, home, name):
        if name == "checkpoints":
            (stopped / name).rename(stopped / "elsewhere")
        (stopped / name).symlink_to(home if name == "checkpoints" else home / "1")
        with pytest.raises(VolanoError):
            volano.resume(stopped, trust=True)
        assert untouched(home)

    @pytest.mark.parametrize("kind", ["pipe", "link"])
    def test_a_page_replaces_no_pipe_and_no_link(self, stopped, home, kind, capsys):
        out = stopped.parent / "page.html"
        if kind == "pipe":
            os.mkfifo(out)
        else:
            out.symlink_to(home / "1")
        assert run_command(["report", str(stopped), "--out", str(out)]) == 2
        assert "--out must name a new file" in capsys.readouterr().err
        assert out.is_fifo() or out.is_symlink()
        assert untouched(home)

    def test_a_pipe_for_a_file_of_a_run_is_not_waited_for(self, stopped):
        for name in ("metrics.jsonl", "task.json"):
            (stopped / name).unlink()
            os.mkfifo(stopped / name)
        assert run_command(["report", str(stopped)]) == 0
