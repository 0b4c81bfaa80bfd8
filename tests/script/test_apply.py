"""A plan as a whole: put on, under three hosts' loops, and taken off."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from script.loops import Net, Squares, plain_loop
from volano.errors import PlanError
from volano.script import apply
from volano.script.apply import applied
from volano.script.plan import ScriptPlan

ALL = ScriptPlan(
    num_workers=1, persistent_workers=True, pin_memory=True, precision="bf16", threads=2,
    memory_format="channels_last", fused=True, cudnn_benchmark=True, non_blocking=True,
)  # fmt: skip


def hooked():
    places = [
        (DataLoader, "__iter__"), (nn.Module, "__call__"), (torch.optim.AdamW, "__init__"),
        (torch.optim.SGD, "__init__"), (torch.Tensor, "to"),
    ]  # fmt: skip
    probe = register_optimizer_step_post_hook(lambda *_: None)
    hooks = len(probe.hooks_dict_ref())
    probe.remove()
    settings = [torch.get_num_threads(), torch.backends.cudnn.benchmark]
    return [getattr(kind, name) for kind, name in places], hooks, settings


def test_everything_is_undone_also_after_an_error():
    before = hooked()

    def fail():
        with applied(ALL):
            assert hooked() != before
            assert torch.get_num_threads() == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert hooked() == before


def test_an_empty_plan_installs_nothing():
    before = hooked()
    with applied(ScriptPlan()) as result:
        assert hooked() == before
        plain_loop(epochs=1)
    assert not result.deeds


def test_the_first_finished_step_is_noted():
    with applied(ScriptPlan(threads=1)) as result:
        assert not result.has_finished_step
        plain_loop(epochs=1)
        assert result.has_finished_step


def test_the_memory_is_kept_and_waits_cannot_be_shortened_any_more(monkeypatch):
    kept = []

    @contextlib.contextmanager
    def keeping():
        kept.append("begun")
        yield True
        kept.append("ended")

    monkeypatch.setattr(apply, "freed_memory_kept", keeping)
    monkeypatch.setenv("GOMP_SPINCOUNT", "3")
    with applied(ScriptPlan(allocator="keep", spin_count=10_000)) as result:
        assert kept == ["begun"]
    assert kept == ["begun", "ended"]
    assert result.notices == (
        "GOMP_SPINCOUNT: how long threads wait was said before torch was imported",
    )
    with applied(ScriptPlan(spin_count=3)) as result:
        assert not result.notices


def test_everything_at_once_trains_alike():
    expected = plain_loop(epochs=2)
    with applied(ALL) as result:
        losses = plain_loop(epochs=2)
    assert losses[0] == pytest.approx(expected[0], rel=2**-6)  # bf16 has 8 bits
    assert losses[-1] == pytest.approx(expected[-1], rel=0.2)
    words = " ".join(result.deeds)
    assert all(word in words for word in ("num_workers=1", "bf16", "channels_last", "AdamW fused"))


def test_fp16_is_refused_on_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with (
        pytest.raises(PlanError, match="needs an accelerator"),
        applied(ScriptPlan(precision="fp16")),
    ):
        pass


def lightning_losses(tmp_path, epochs=2):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.losses = Net(), []

        def training_step(self, batch, index):
            images, labels = batch
            loss = nn.functional.cross_entropy(self.net(images), labels)
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-2)

    torch.manual_seed(3)
    module = Module()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Squares(), batch_size=4, shuffle=True))
    return module.losses


def trainer_losses(tmp_path, epochs=2):
    import transformers

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.losses = Net(), []

        def forward(self, images, labels):
            loss = nn.functional.cross_entropy(self.net(images), labels)
            self.losses.append(loss.item())
            return {"loss": loss}

    class Named(Squares):
        def __getitem__(self, index):
            return dict(zip(("images", "labels"), super().__getitem__(index), strict=True))

    torch.manual_seed(3)
    model = Model()
    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, num_train_epochs=epochs, report_to="none",
        save_strategy="no", disable_tqdm=True, use_cpu=True, optim="adamw_torch",
        logging_strategy="no",
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=Named()).train()
    return model.losses


def accelerate_losses(tmp_path, epochs=2):
    import accelerate

    torch.manual_seed(3)
    accelerator = accelerate.Accelerator(cpu=True)
    net = Net()
    net, optimizer, loader = accelerator.prepare(
        net,
        torch.optim.AdamW(net.parameters(), lr=1e-2),
        DataLoader(Squares(), batch_size=4, shuffle=True),
    )
    losses = []
    for _ in range(epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(net(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


@pytest.mark.usefixtures("environment_kept")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("losses_of", [lightning_losses, trainer_losses, accelerate_losses])
def test_the_same_hooks_serve_other_peoples_loops(losses_of, tmp_path):
    expected = losses_of(tmp_path)
    with applied(ScriptPlan(num_workers=1, persistent_workers=True)) as result:
        assert losses_of(tmp_path) == expected
    assert "num_workers=1" in result.deeds[0]
    with applied(ScriptPlan(fused=True, memory_format="channels_last")) as result:
        assert losses_of(tmp_path)[:3] == pytest.approx(expected[:3], rel=1e-3)
    assert len(result.deeds) == 2, result.deeds
