"""Training a task of one's own by its object or by its name, and going on with the run."""

import json
import os
import signal

import pytest

import volano
from volano import Plan
from volano.errors import UsageError
from volano.running.train import check_unfinished
from volano.training import RunFolder


class Stop(volano.Observer):
    """Asks this process to stop after the first step."""

    def on_log(self, record):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_task_that_is_named_can_be_made_again(make_task, quiet, tmp_path, monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        return make_task(duration="3st")

    monkeypatch.setattr("volano.api.train.load_reference", load)
    monkeypatch.setattr("volano.running.processes.load_task", load)
    run = volano.train("mine:task", plan=Plan.baseline(), out=tmp_path / "run", observer=Stop())
    source = RunFolder.open(run.path).read_json("run.json")["source"]
    assert source == {"kind": "reference", "reference": "mine:task"}
    assert run.status == "stopped"
    assert volano.resume(run.path, observer=quiet).status == "finished"
    assert asked == ["mine:task"] * 2


def test_a_task_object_is_asked_for_again(make_task, quiet, tmp_path):
    run = volano.train(
        make_task(duration="3st"), plan=Plan.baseline(), out=tmp_path / "run", observer=Stop()
    )
    with pytest.raises(UsageError, match="must be resumed with its task; got .*run without one"):
        volano.resume(run.path, observer=quiet)


def test_what_is_no_task_is_refused_and_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError, match="an application or a task of your own; got 3"):
        volano.train(3, out=tmp_path / "run")  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("longer", "said"),
    [
        ("volano train image --minutes 4", "A longer one: volano train image --minutes 4$"),
        ("volano train image; rm -rf ~", "Train again, for longer.$"),
        ("volano train image $(rm x)", "Train again, for longer.$"),
        ("rm -rf ~", "Train again, for longer.$"),
        ("volano train image\nrm -rf ~", "Train again, for longer.$"),
        (["volano train image"], "Train again, for longer.$"),
    ],
)
def test_of_a_finished_run_a_longer_training_alone_is_shown(tmp_path, longer, said):
    record = {"schema_version": 1, "status": "finished", "verdict": {"longer": longer}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "report.html").write_text("")
    with pytest.raises(UsageError, match=said):
        check_unfinished(RunFolder.open(tmp_path))
