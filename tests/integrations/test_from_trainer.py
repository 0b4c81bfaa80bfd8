"""Tasks from Trainers of transformers, with the real package."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import volano
from volano.errors import TaskError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def transformers():
    before = dict(os.environ)
    import transformers

    os.environ.clear()
    os.environ.update(before)
    return transformers


class Rows(Dataset):
    """Named rows, as collators take them."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        x = torch.randn(4, generator=generator)
        return {"x": x, "labels": int(x[:3].argmax())}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def make(transformers, folder, kind=None, more=None, **arguments):
    how = {
        "per_device_train_batch_size": 4, "num_train_epochs": 2, "report_to": "none",
        "use_cpu": True, "disable_tqdm": True, "learning_rate": 0.01, "seed": 5, **arguments,
    }  # fmt: skip
    settings = transformers.TrainingArguments(str(folder), **how)
    trainer = kind or transformers.Trainer
    return trainer(model=Net(), args=settings, train_dataset=Rows(), **(more or {}))


def test_the_task_has_the_trainers_settings(transformers, tmp_path):
    trainer = make(
        transformers, tmp_path, more={"eval_dataset": Rows()},
        gradient_accumulation_steps=2, warmup_steps=2, weight_decay=0.1,
    )  # fmt: skip
    task = volano.from_trainer(trainer)
    assert (task.batch_size, task.num_steps, task.seed, task.clip_norm) == (8, 6, 5, 1.0)
    assert task.schedule.multipliers == pytest.approx((0, 0.5, 1, 0.75, 0.5, 0.25))
    assert len(task.valid) == 24
    model = task.model()
    optimizer = task.optimizer(task.parameter_groups(model))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.defaults["lr"] == 0.01
    assert trainer.optimizer is None
    assert trainer.lr_scheduler is None
    batch = {"x": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2])}
    expected = trainer.model(**batch)["loss"]
    assert torch.allclose(task.objective(model, batch), expected)
    assert set(batch) == {"x", "labels"}


def test_it_trains(transformers, tmp_path):
    trainer = make(transformers, tmp_path, more={"eval_dataset": Rows()})
    task = volano.from_trainer(trainer, duration="4ep")
    rows = torch.utils.data.default_collate([Rows()[index] for index in range(24)])
    before = task.objective(task.model(), rows).item()
    run = volano.train(task, plan=volano.Plan.baseline(), out=tmp_path / "run")
    assert run.status == "finished"
    assert run.metrics["valid_loss"] < before


def test_what_a_task_cannot_hold_is_refused_by_name(transformers, tmp_path):
    class Own(transformers.Trainer):
        def training_step(self, *arguments, **more):
            return super().training_step(*arguments, **more)

    class Changes(transformers.TrainerCallback):
        def on_step_end(self, *arguments, **more):
            pass

    with pytest.raises(TaskError, match=r"Own\.training_step"):
        volano.from_trainer(make(transformers, tmp_path, Own))
    changed = make(transformers, tmp_path, more={"callbacks": [Changes()]})
    with pytest.raises(TaskError, match=r"callbacks\.Changes"):
        volano.from_trainer(changed)
    assert volano.from_trainer(changed, leave_out=["Changes"]).batch_size == 4
    with pytest.raises(TaskError, match="neftune_noise_alpha=5"):
        volano.from_trainer(make(transformers, tmp_path, neftune_noise_alpha=5.0))
