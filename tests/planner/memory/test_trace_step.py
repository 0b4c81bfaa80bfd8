"""A step of fake tensors holds and does what the plan's step would."""

import copy
import functools
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from conftest import classification, make_mlp
from volano import Plan
from volano.data import Arrays
from volano.device.isolated import IsolatedError
from volano.errors import VolanoError
from volano.planner.memory.predict import measure, predict_memory
from volano.planner.memory.trace_step import (
    data_bytes,
    fake_batch,
    fake_copy,
    model_without_values,
    to_channels_last,
)


class TestFakes:
    def test_what_a_factory_shares_with_others_stays(self, make_task):
        shared = nn.Linear(4, 4).requires_grad_(False)
        weight = shared.weight
        task = make_task(model=lambda: nn.Sequential(shared, nn.Linear(4, 2)))
        model = model_without_values(task)
        assert {type(p.data) for p in model.parameters()} == {FakeTensor}
        assert model[0] is not shared
        assert shared.weight is weight
        assert type(weight.data) is torch.Tensor

    def test_a_copy_shares_what_its_model_shares(self):
        with FakeTensorMode():
            shared = nn.Linear(4, 4)
            copied = fake_copy(nn.Sequential(shared, shared, nn.BatchNorm1d(4)))
        assert copied[0] is copied[1]
        assert copied[0].weight is not shared.weight
        assert isinstance(copied[0].weight, nn.Parameter)
        assert len(list(copied.parameters())) == 4

    def test_a_frozen_parameter_is_frozen_in_the_copy(self):
        with FakeTensorMode():
            model = nn.Linear(4, 4)
            model.bias.requires_grad_(False)
            copied = fake_copy(model)
        assert [p.requires_grad for p in copied.parameters()] == [True, False]

    def test_tensors_of_a_batch_have_storages_of_their_own(self):
        rows = torch.ones(8, 3)
        batch = rows[:4], rows[4:].long()
        with FakeTensorMode():
            first, second = fake_batch(batch)
        assert (first.shape, second.dtype) == ((4, 3), torch.int64)
        assert first.untyped_storage().nbytes() == 4 * 3 * 4

    def test_images_alone_change_their_layout(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4))
        expected = copy.deepcopy(model).to(memory_format=torch.channels_last)
        to_channels_last(model)
        for found, other in zip(model.parameters(), expected.parameters(), strict=True):
            assert found.stride() == other.stride()


def test_slots_of_workers_lie_in_the_hosts_memory(make_task):
    task = make_task()
    batch = task.data[:32]
    ring = Plan.baseline().pin(workers=2, prefetch=3)
    slots = data_bytes(task, ring, batch, is_cpu=True)
    assert slots >= 6 * 32 * (64 * 4 + 8)
    assert data_bytes(task, ring, batch, is_cpu=False) == 0
    assert data_bytes(task, ring.pin(workers=0), batch, is_cpu=True) == 0
    assert data_bytes(task, ring.pin(workers=4), batch, is_cpu=True) > slots


def make_transformer(dropout=0.1):
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=dropout, batch_first=True)
    return nn.Sequential(
        nn.Unflatten(1, (8, 8)), nn.Linear(8, 32), nn.TransformerEncoder(layer, 2,
        enable_nested_tensor=False), nn.Flatten(), nn.Linear(8 * 32, 10),
    )  # fmt: skip


def test_the_operations_of_all_micro_batches_are_those_of_the_batch(make_task):
    task = make_task()
    whole, parts = (
        predict_memory(task, Plan.baseline()),
        predict_memory(task, Plan.baseline().pin(micro_batch=5)),
    )

    def flops(prediction):
        return sum(operation.flops * operation.count for operation in prediction.operations)

    assert flops(parts) == flops(whole) > 0
    updates = [
        sum(
            o.count for o in prediction.operations if o.phase == "optimizer" and "foreach" in o.name
        )
        for prediction in (whole, parts)
    ]
    assert updates[0] == updates[1] > 0


def test_randomness_is_found(make_task):
    assert predict_memory(
        make_task(model=functools.partial(make_mlp, dropout=0.5)), Plan.baseline()
    ).has_randomness
    assert not predict_memory(make_task(), Plan.baseline()).has_randomness


def test_augmentation_acts_on_the_whole_batch(make_task):
    def augment(batch, generator):
        inputs, labels = batch
        noise = torch.rand(inputs.shape, generator=generator)
        return inputs + noise, labels

    task, plan = make_task(augment=augment), Plan.baseline().pin(micro_batch=4)
    assert predict_memory(task, plan).memory.peak == pytest.approx(
        measure(task, plan).peak, rel=1e-3
    )


def test_a_set_that_is_kept_on_an_accelerator_counts(make_task):
    task = make_task()
    resident = predict_memory(
        task, Plan.baseline().pin(feed="resident"), target="accelerator"
    ).memory
    ring = predict_memory(task, Plan.baseline(), target="accelerator").memory
    assert resident.categories["data"] == (512 + 64) * (64 * 4 + 8)
    assert ring.categories["data"] == 32 * 64 * 4 + 512  # the next batch, in blocks of 512 bytes
    assert predict_memory(task, Plan.baseline().pin(feed="resident")).memory.categories["data"] == 0


def test_what_is_offloaded_lies_on_the_host(make_task):
    task = make_task(
        model=make_transformer,
        batch_size=256,
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
    )
    base = predict_memory(task, Plan.baseline(), target="accelerator").memory
    here = predict_memory(task, Plan.baseline()).memory
    for offload in ("activations", "optimizer", "all"):
        check_offload(task, offload, base, here)


def check_offload(task, offload, base, here):
    found = predict_memory(task, Plan.baseline().pin(offload=offload), target="accelerator").memory
    assert base.host == 0
    assert sum(found.categories.values()) == found.peak < base.peak
    if offload == "optimizer":
        assert base.peak - found.peak <= base.categories["optimizer_state"] == found.host
    else:
        assert found.categories["activations"] < 0.5 * base.categories["activations"]
        assert found.host > 0.5 * base.categories["activations"]
    # The CPU's memory is the host's.
    assert predict_memory(task, Plan.baseline().pin(offload=offload)).memory == here


def test_a_model_whose_constructor_reads_a_file_is_predicted(make_task):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pt")
        torch.save(make_mlp().state_dict(), path)

        def make():
            model = make_mlp()
            model.load_state_dict(torch.load(path, weights_only=True))
            assert float(model[0].weight.abs().sum()) > 0  # fake weights have no sum
            return model

        assert predict_memory(make_task(model=make), Plan.baseline()).memory.peak == (
            predict_memory(make_task(), Plan.baseline()).memory.peak
        )


def test_an_objective_that_reads_values_is_told_in_one_line(make_task):
    def objective(model, batch):
        loss = classification(model, batch)
        return loss / loss.item()

    with pytest.raises(IsolatedError, match="reads a value from the device") as caught:
        predict_memory(make_task(objective=objective), Plan.baseline())
    assert "\n" not in caught.value.reason
    assert isinstance(caught.value, VolanoError)
    assert measure(make_task(objective=objective), Plan.baseline()).peak > 0


def test_shapes_that_follow_from_values_are_told(make_task):
    def objective(model, batch):
        inputs, labels = batch
        kept = labels > 4
        return F.cross_entropy(model(inputs[kept]), labels[kept])

    with pytest.raises(IsolatedError, match="a shape follows from values"):
        predict_memory(make_task(objective=objective), Plan.baseline())


def test_dictionaries_travel(make_task):
    data = Arrays({"x": torch.rand(64, 64), "y": torch.randint(10, (64,))})
    task = make_task(
        data=data, valid=None, objective=lambda model, b: F.cross_entropy(model(b["x"]), b["y"])
    )
    # So small a net is largest while the next batch is made, and the last one still held.
    assert predict_memory(task, Plan.baseline()).memory.categories["batch"] == 2 * 32 * (64 * 4 + 8)
