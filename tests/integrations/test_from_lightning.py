"""Tasks from LightningModules, with the real package."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import volano
from volano.errors import TaskError
from volano.task import num_examples

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def lightning():
    before = dict(os.environ)
    import lightning

    os.environ.clear()
    os.environ.update(before)
    return lightning


def make(lightning, **methods):
    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 3)

        def training_step(self, batch, batch_idx):
            x, y = batch
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    for name, value in methods.items():
        setattr(Net, name, value)
    return Net()


def loader(count=32, **how):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return DataLoader(
        TensorDataset(x, x[:, :3].argmax(1)), batch_size=8, **{"shuffle": True, **how}
    )


def test_the_task_has_the_modules_loss_optimizer_and_metrics(lightning):
    module, data = make(lightning), loader()
    task = volano.from_lightning(module, (data, loader(shuffle=False)), duration="2ep", seed=3)
    assert (task.batch_size, task.num_steps, task.seed) == (8, 8, 3)
    model = task.model()
    batch = next(iter(data))
    loss = task.objective(model, batch)
    expected = nn.functional.cross_entropy(module.net(batch[0]), batch[1])
    assert torch.allclose(loss.total / loss.weight, expected)
    assert "accuracy" in loss.metrics
    assert num_examples(batch) == loss.weight
    optimizer = task.optimizer(task.parameter_groups(model))
    assert optimizer.defaults["momentum"] == 0.9
    assert next(model.parameters()) is optimizer.param_groups[0]["params"][0]
    assert "log" not in vars(model)


def test_it_trains_with_reports_and_all(lightning, tmp_path):
    module = make(lightning)
    before = module.net.weight.clone()
    task = volano.from_lightning(module, (loader(), loader()), duration="3ep")
    run = volano.train(task, plan=volano.Plan.baseline(), out=tmp_path / "run")
    assert run.status == "finished"
    assert run.metrics["valid_accuracy"] > 0.2
    assert torch.equal(module.net.weight, before)


def test_schedules_of_three_forms(lightning):
    def configure(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return forms[self.form](optimizer, scheduler)

    forms = {
        "lists": lambda o, s: ([o], [s]),
        "dict": lambda o, s: {"optimizer": o, "lr_scheduler": s},
        "steps": lambda o, s: {
            "optimizer": o,
            "lr_scheduler": {"scheduler": s, "interval": "step"},
        },
    }
    per_epoch, per_step = (1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5), tuple(0.5**s for s in range(8))
    for form, expected in (("lists", per_epoch), ("dict", per_epoch), ("steps", per_step)):
        module = make(lightning, configure_optimizers=configure, form=form)
        task = volano.from_lightning(module, loader(), duration="2ep")
        assert task.schedule.multipliers == expected


def two(self):
    return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]


def by_index(self, batch, batch_idx):
    return self.net(batch[0]).sum() * batch_idx


def by_epoch(self, batch, batch_idx):
    return self.net(batch[0]).sum() * self.current_epoch


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"automatic_optimization": False}, "manual optimization"),
        ({"configure_optimizers": two}, "2 from Net.configure_optimizers"),
        ({"on_train_batch_end": lambda self, *_: None}, "Net.on_train_batch_end"),
        ({"configure_gradient_clipping": lambda self, *_: None}, "configure_gradient_clipping"),
        ({"training_step": by_index}, "asks for batch_idx"),
        ({"training_step": by_epoch}, "asks for current_epoch"),
    ],
)
def test_what_a_task_cannot_hold_is_refused_by_name(lightning, methods, words):
    with pytest.raises(TaskError, match=words):
        volano.from_lightning(make(lightning, **methods), loader(), duration="1ep")


def test_hooks_that_change_nothing_may_be_left_out(lightning):
    module = make(lightning, on_train_epoch_end=lambda self: None)
    task = volano.from_lightning(
        module, loader(), duration="1ep", leave_out=["on_train_epoch_end"], clip_norm=1.0
    )
    assert task.clip_norm == 1.0


def test_a_datamodule_gives_both_loaders(lightning):
    class Data(lightning.LightningDataModule):
        def setup(self, stage):
            self.count = 16

        def train_dataloader(self):
            return loader(self.count)

        def val_dataloader(self):
            return loader(8, shuffle=False)

    task = volano.from_lightning(make(lightning), Data(), duration="1ep")
    assert (len(task.data), len(task.valid)) == (16, 8)
