"""Training on what the frozen prefix has computed before: the same weights, few calls of it."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

import volano
from conftest import assert_same_runs, classification
from training.prefix.frozen_nets import Coupled, Frozen, Leaking, Many, Pieces, Trunk, Writing
from volano import Plan
from volano.training import RunFolder, Session, run_task

CACHED = Plan.baseline().pin(prefix="cached")


class Hears(volano.Observer):
    def __init__(self) -> None:
        self.notices = []

    def on_notice(self, text):
        self.notices.append(text)


def train(task, plan, path, **options):
    Trunk.calls, hears = 0, Hears()
    folder = RunFolder(path)
    if not options.get("resume"):
        folder.make()
    return run_task(task, plan, folder, observer=hears, **options), hears.notices


def assert_equal_weights(run, expected, **tolerance):
    theirs = expected.model.state_dict()
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], **tolerance)


ROUNDING: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("net", [Frozen, Pieces, Leaking, Many])
def test_the_weights_are_those_of_computing_it_each_time(make_task, tmp_path, net):
    task = make_task(model=net, duration="5ep")
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert not notices
    assert kept.plan == CACHED
    assert_equal_weights(kept, plain, **ROUNDING)
    assert kept.metrics["valid_loss"] == pytest.approx(plain.metrics["valid_loss"], rel=1e-4)


def test_what_it_saves_is_measured(make_task, tmp_path):
    kept, _ = train(make_task(model=Frozen, duration="3ep"), CACHED, tmp_path / "kept")
    record = RunFolder.open(kept.path).read_json("run.json")
    assert record["prefix"]["num_taken_up"] == 2 * 512
    assert isinstance(record["prefix"]["saved_seconds"], float)
    assert [(part["name"], part["trained"]) for part in record["network"]] == [
        ("trunk", 0),
        ("head", 490),
    ]


def test_it_is_computed_in_the_first_epoch_alone(make_task, tmp_path):
    task = make_task(model=Frozen, duration="5ep")
    train(task, Plan.baseline(), tmp_path / "plain")
    assert Trunk.calls == 80 + 10
    train(task, CACHED, tmp_path / "kept")
    # 16 steps, 2 batches of the validation set, 4 spot checks, and what it takes to find it.
    assert 16 + 2 + 4 < Trunk.calls < 16 + 2 + 4 + 14


def test_new_examples_of_a_later_epoch_are_computed_alone(make_task, tmp_path):
    rows = []

    class Sees(Trunk):
        def forward(self, x):
            rows.append(len(x))
            return super().forward(x)

    # 20 of 500 examples are left out of each epoch: nearly each batch of the second holds one.
    data = torch.utils.data.Subset(make_task().data, range(500))
    task = make_task(model=lambda: Frozen(trunk=Sees()), data=data, duration="5ep", valid=None)
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert not notices
    assert kept.plan == CACHED
    assert 500 - 20 <= sum(rows) - sum(n for n in rows if n <= 4) <= 500
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    assert_equal_weights(kept, plain, **ROUNDING)


def test_an_objective_that_writes_into_its_batch_keeps_nothing(make_task, tmp_path):
    def objective(model, batch):
        batch[0].mul_(0.5)
        return classification(model, batch)

    task = make_task(model=Frozen, objective=objective)
    _, notices = train(task, CACHED, tmp_path / "kept")
    assert "the objective writes into its batch" in notices[0]


@pytest.mark.parametrize("last_batch", ["drop", "keep"])
def test_resumed_it_is_bitwise_the_same(make_task, tmp_path, last_batch):
    # 500 examples: of each epoch others are left out, which are computed in a later one.
    data = torch.utils.data.Subset(make_task().data, range(500))
    task = make_task(model=Frozen, data=data, duration="4ep", last_batch=last_batch)
    safety = volano.Safety(save_every="7st")
    train(task, CACHED, tmp_path / "whole", safety=safety)

    class Stops(volano.Observer):
        def on_log(self, record):
            if record["step"] >= 24:
                raise KeyboardInterrupt

    folder = RunFolder(tmp_path / "halves")
    folder.make()
    with pytest.raises(KeyboardInterrupt):
        run_task(task, CACHED, folder, observer=Stops(), safety=safety)
    train(task, CACHED, tmp_path / "halves", resume=True)
    assert_same_runs(tmp_path / "halves", tmp_path / "whole")


class Jittered(torch.utils.data.Dataset):
    """Examples that are others each time."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        pixels, label = self.inner[index]
        return pixels + 0.01 * torch.rand(64), label


def test_a_pinned_prefix_that_does_not_apply_is_said(make_task, tmp_path):
    def augment(batch, generator):
        return batch[0] + 0.1 * torch.rand(batch[0].shape, generator=generator), batch[1]

    for fields, reason in [
        ({"augment": augment}, "no effect: `augment` makes other examples"),
        ({"model": lambda: Frozen(trunk=Writing())}, "from 0 on: trunk writes a buffer"),
        ({"model": lambda: Frozen(trunk=Coupled())}, "on the others of a batch"),
        ({}, "no layer of the model is frozen"),
    ]:
        task = make_task(duration="3ep", **fields)
        path = tmp_path / str(hash(reason))
        run, notices = train(task, CACHED, path)
        assert any(reason in notice for notice in notices), notices
        plain, _ = train(task, Plan.baseline(), path.with_suffix(".plain"))
        assert_equal_weights(run, plain, rtol=0, atol=0)


def test_random_examples_are_never_taken_up(make_task, tmp_path):
    task = make_task(model=Frozen, data=Jittered(make_task().data), duration="4ep")
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert "the examples are not the same in each epoch" in notices[0]
    assert kept.plan.prefix == "computed"
    assert Plan.load(tmp_path / "kept" / "plan.json").prefix == "computed"
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    assert_equal_weights(kept, plain, rtol=0, atol=0)


@pytest.mark.parametrize("through", ["in place", "data"])
def test_frozen_weights_that_are_written_are_seen(make_task, tmp_path, through):
    state = {"calls": 0}

    def objective(model, batch):
        state["calls"] += model.training
        if state["calls"] == 60:
            weight = model.trunk.layers[0].weight
            target = weight.data if through == "data" else weight
            with torch.no_grad():
                target.mul_(2.0)
        return classification(model, batch)

    task = make_task(model=Frozen, objective=objective, duration="8ep", valid=None)
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert len(notices) == 1
    expected = "were written" if through == "in place" else "computes something else than before"
    assert expected in notices[0]
    assert kept.plan.prefix == "computed"


def test_another_use_of_a_frozen_value_is_seen(make_task, tmp_path):
    class Net(Pieces):
        calls = 0

        def forward(self, x):
            Net.calls += self.training
            linear, norm, _ = self.trunk.layers
            inner = linear(x)
            logits = self.head(torch.relu(norm(inner)))
            return logits + self.head(inner) if Net.calls > 60 else logits

    task = make_task(model=Net, duration="6ep", valid=None)
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert "uses what nothing has used before" in notices[0]
    Net.calls = 0
    # The plain run is not looked at by some more calls: it changes at the same step.
    assert kept.plan.prefix == "computed"


def test_micro_batches_take_up_the_same(make_task, tmp_path):
    task = make_task(model=Frozen, duration="4ep")
    plain, _ = train(task, Plan.baseline().pin(micro_batch=8), tmp_path / "plain")
    kept, _ = train(task, CACHED.pin(micro_batch=8), tmp_path / "kept")
    assert_equal_weights(kept, plain, **ROUNDING)


def test_a_step_that_runs_out_of_memory_is_split(make_task, tmp_path):
    state = {"calls": 0}

    def objective(model, batch):
        state["calls"] += model.training
        if len(batch[0]) > 16 and state["calls"] > 40 and model.training:
            raise torch.OutOfMemoryError("no more")
        return classification(model, batch)

    task = make_task(model=Frozen, objective=objective, duration="5ep")
    run, notices = train(task, CACHED, tmp_path / "kept", may_split=True)
    assert "ran out of memory and is repeated with micro_batch=16" in notices[0]
    assert run.plan == CACHED.pin(micro_batch=16)
    assert run.metrics["valid_loss"] < 2.0


def test_channels_last_and_narrow_types(make_task, tmp_path):
    def model():
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        net = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), trunk, nn.Conv2d(8, 4, 3), nn.Flatten())
        trunk.requires_grad_(False)
        return nn.Sequential(net, nn.Linear(16, 10))

    for knobs in ({"memory_format": "channels_last"}, {"precision": "bf16"}):
        task = make_task(model=model, duration="3ep")
        path = tmp_path / "_".join(knobs)
        plain, _ = train(task, Plan.baseline().pin(**knobs), path.with_suffix(".plain"))
        kept, notices = train(task, CACHED.pin(**knobs), path)
        assert not notices
        tolerance = ROUNDING if "memory_format" in knobs else {"rtol": 2e-2, "atol": 2e-3}
        assert_equal_weights(kept, plain, **tolerance)


def test_a_corrupt_example_s_substitute_has_its_own_features(make_task, tmp_path):
    class Corrupt(Jittered):
        def __getitem__(self, index):
            if index == 7:
                raise OSError("not to be read")
            return self.inner[index]

    task = make_task(model=Frozen, data=Corrupt(make_task().data), duration="4ep")
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    kept, _ = train(task, CACHED, tmp_path / "kept")
    assert kept.plan == CACHED
    assert_equal_weights(kept, plain, **ROUNDING)


def test_what_does_not_fit_into_memory_lies_in_files(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr("volano.training.prefix.feature_room.FEATURES_SHARE", 1e-9)
    monkeypatch.setattr("volano.training.prefix.feature_room._LEAST_GAIN", 0.0)
    task = make_task(model=Frozen, duration="3ep")
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert "the rest lies in files without a name" in notices[0]
    assert kept.plan == CACHED
    assert_equal_weights(kept, plain, **ROUNDING)


def test_it_takes_no_more_memory_and_disk_than_there_are(make_task, tmp_path, monkeypatch):
    for share in ("FEATURES_SHARE", "_DISK_SHARE"):
        monkeypatch.setattr(f"volano.training.prefix.feature_room.{share}", 1e-9)
    run, notices = train(make_task(model=Frozen, duration="3ep"), CACHED, tmp_path / "kept")
    assert "and the rest is more than 0 MiB of disk" in notices[0]
    assert run.plan.prefix == "computed"


def test_an_average_of_weights_is_evaluated_plainly(make_task, tmp_path):
    task = make_task(model=Frozen, duration="3ep", ema_decay=0.9)
    plain, _ = train(task, Plan.baseline(), tmp_path / "plain")
    kept, notices = train(task, CACHED, tmp_path / "kept")
    assert not notices
    assert_equal_weights(kept, plain, **ROUNDING)


def test_a_session_without_it_has_none(make_task):
    assert Session(make_task(), Plan.baseline()).prefix is None
    task = dataclasses.replace(make_task(), tolerance="exact")
    with pytest.raises(volano.errors.PlanError, match="prefix='cached'"):
        Session(task, CACHED)
