import io
import json
import os
import signal

import pytest
import torch
from torch import nn

import volano
from conftest import classification, classification_with_accuracy, make_mlp
from volano import Plan
from volano.training import PlainProgress


def test_a_run_leaves_a_complete_folder(make_task, quiet, tmp_path):
    task = make_task(objective=classification_with_accuracy, name="digits")
    run = volano.train(task, out=tmp_path / "run", observer=quiet)
    names = {path.name for path in run.path.iterdir()}
    files = {
        "run.json",
        "task.json",
        "plan.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "explanation.json",
    }
    assert names == {*files, "checkpoints"}
    record = json.loads((run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["metrics"] == run.metrics
    assert record["machine"]["num_cores"] >= 1
    assert record["seconds"].keys() >= {"prepare", "train", "evaluate", "checkpoint", "total"}
    assert Plan.load(run.path / "plan.json") == run.plan
    steps = [
        json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)
    assert steps[-1] == task.num_steps
    assert quiet.ends == ["finished"]


def test_evaluation_is_over_every_example_once(make_task, quiet, tmp_path, digits):
    # 64 examples in batches of 48 and 16.
    task = make_task(objective=classification_with_accuracy, batch_size=48)
    run = volano.train(task, out=tmp_path / "run", observer=quiet)
    inputs, labels = task.valid.tensors
    with torch.no_grad():
        logits = run.model(inputs)
    expected = nn.functional.cross_entropy(logits, labels).item()
    assert run.metrics["valid_loss"] == pytest.approx(expected, rel=1e-5)
    assert run.metrics["valid_accuracy"] == pytest.approx(
        (logits.argmax(1) == labels).float().mean().item()
    )


def test_a_preview_is_kept_and_changes_no_number(make_task, quiet, tmp_path):
    def preview(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {
            "text": f"drawn {torch.rand(()).item():.3f}",
            "mean": next(model.parameters()).mean().item(),
        }

    dropout = {"model": lambda: make_mlp(dropout=0.5)}
    plain = volano.train(make_task(**dropout), out=tmp_path / "plain", observer=quiet)
    shown = io.StringIO()
    task = make_task(**dropout, preview=preview)
    run = volano.train(task, out=tmp_path / "run", observer=PlainProgress(shown))
    records = [json.loads(line) for line in (run.path / "previews.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [16, 32]
    assert records[0]["mean"] != records[1]["mean"]
    assert f"  text: {records[0]['text']}" in shown.getvalue()
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name])


def test_batches_of_any_shape(make_task, quiet, tmp_path, digits):
    pixels, labels = digits

    class Dicts(torch.utils.data.Dataset):
        def __len__(self):
            return 128

        def __getitem__(self, index):
            return {
                "image": pixels[index],
                "target": {"label": labels[index]},
                "id": f"digit {index}",
            }

    def objective(model, batch):
        return classification(model, (batch["image"], batch["target"]["label"]))

    run = volano.train(
        make_task(data=Dicts(), valid=None, objective=objective),
        out=tmp_path / "run",
        observer=quiet,
    )
    assert run.status == "finished"
    # Why the feed is a ring.
    assert any("computes its examples" in notice for notice in run.notices)
    assert run.plan.feed == "ring"


def test_a_kept_last_batch_is_trained_on(make_task, quiet, tmp_path):
    sizes = []

    def objective(model, batch):
        sizes.append(len(batch[0]))
        return classification(model, batch)

    task = make_task(
        objective=objective, batch_size=200, last_batch="keep", duration="1ep", valid=None
    )
    volano.train(task, out=tmp_path / "run", observer=quiet)
    assert sizes == [200, 200, 112]


class TestPins:
    def test_a_pin_is_taken(self, make_task, quiet, tmp_path):
        run = volano.train(
            make_task(),
            out=tmp_path / "run",
            observer=quiet,
            pins={"precision": "bf16", "micro_batch": 16, "threads": 1},
        )
        assert (run.plan.precision, run.plan.micro_batch, run.plan.threads) == ("bf16", 16, 1)

    def test_a_pin_beyond_the_tolerance_is_refused(self, make_task, tmp_path):
        task = make_task(tolerance="rounding")
        with pytest.raises(volano.VolanoError, match="tolerance, 'rounding'; got precision='bf16'"):
            volano.train(task, out=tmp_path / "run", pins={"precision": "bf16"})
        assert not (tmp_path / "run").exists()

    def test_exact_is_the_baseline(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(tolerance="exact"), out=tmp_path / "run", observer=quiet)
        assert run.plan.semantics() == "exact"
        refused = json.loads((run.path / "explanation.json").read_text())["refused"]
        assert any(
            r["knob"] == "precision" and r["reason"] == "the task's tolerance is 'exact'"
            for r in refused
        )

    def test_a_plan_and_pins_do_not_go_together(self, make_task, tmp_path):
        with pytest.raises(volano.VolanoError, match="leaves nothing to choose"):
            volano.train(
                make_task(), plan=Plan.baseline(), pins={"threads": 1}, out=tmp_path / "run"
            )


class Killed(torch.utils.data.Dataset):
    """Digits whose worker process is killed once, at one example."""

    def __init__(self, digits, mark):
        self.digits, self.mark = digits, mark

    def __len__(self):
        return 512

    def __getitem__(self, index):
        if index == 40 and self.mark.exists():
            self.mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.digits[0][index], self.digits[1][index]


def test_a_killed_worker_is_told_of_and_changes_nothing(make_task, digits, tmp_path, quiet):
    mark = tmp_path / "mark"
    data = Killed(digits, mark)
    plain = volano.train(
        make_task(data=data),
        plan=Plan.baseline("cpu"),
        out=tmp_path / "a",
        observer=volano.Observer(),
    )
    mark.touch()
    plan = Plan.baseline("cpu").pin(workers=1)
    run = volano.train(make_task(data=data), plan=plan, out=tmp_path / "b", observer=quiet)
    assert any("was ended by SIGKILL" in notice for notice in run.notices)
    for mine, theirs in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert all(0.0 <= record["data_wait_share"] <= 1.0 for record in quiet.logs)
