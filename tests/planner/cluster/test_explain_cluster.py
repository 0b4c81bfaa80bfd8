"""Trainings on clusters that are not here."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

import volano
from planner.searching import make_task
from volano.data import Arrays
from volano.errors import UsageError
from volano.planner import PlanRequest, explain_cluster


class Decoder(nn.Module):
    """Blocks between an embedding and a head."""

    def __init__(self, width, depth, vocabulary=512) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def next_token(model, ids):
    ids = ids.long()
    return nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def decoder_task(width=512, depth=4, batch_size=64, length=256, **fields):
    ids = torch.zeros(batch_size, length + 1, dtype=torch.int32)
    return volano.Task(
        **{
            "model": functools.partial(Decoder, width, depth),
            "objective": next_token,
            "data": Arrays(ids),
            "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
            "batch_size": batch_size,
            "duration": "1000st",
            "name": "decoder",
            **fields,
        }
    )


@pytest.fixture(scope="module")
def found():
    return explain_cluster(decoder_task(), "H100 x 16", PlanRequest())


def test_every_way_to_share_a_model_is_predicted(found):
    assert {c.plan.sharding for c in found.candidates} == {"none", "full", "hybrid"}
    assert found.verdict == "FITS"
    assert (found.num_nodes, found.per_node, found.machine) == (2, 8, "DGX H100")
    for candidate in found.candidates:
        assert candidate.plan.precision == "bf16"
        assert sum(candidate.time.bounds.values()) == pytest.approx(candidate.time.step)
        assert 0 <= candidate.exchange_share < 1
        assert candidate.tokens_per_second == 257 * candidate.examples_per_second
        assert candidate.passes * (candidate.plan.micro_batch or 4) == 4
    by_sharding = {
        c.plan.sharding: c.memory.categories["optimizer_state"] for c in found.candidates
    }
    assert by_sharding["none"] > by_sharding["hybrid"] > by_sharding["full"]


def test_the_curve_goes_over_the_devices_that_divide_the_batch(found):
    assert [point.world_size for point in found.curve] == [1, 2, 4, 8, 16, 32, 64]
    rates = [point.examples_per_second for point in found.curve]
    assert rates[0] < rates[1] < max(rates)  # at the end so small a batch is bound by its host
    assert found.cheapest.device_hours == min(point.device_hours for point in found.curve)
    text = found.to_json()
    assert text["cheapest"]["world_size"] == found.cheapest.world_size


def test_a_model_larger_than_a_device_and_than_this_machine_is_sharded():
    task = decoder_task(width=16384, depth=16, batch_size=16, length=32)
    found = explain_cluster(task, "H100 x 16", PlanRequest())
    assert found.best.verdict != "NO"
    assert found.best.plan.sharding == "full"
    whole = next(c for c in found.candidates if c.plan.sharding == "none")
    assert whole.verdict == "NO"
    assert any("too large to look here" in notice for notice in found.notices)


def test_a_budget_makes_micro_batches_or_recomputation():
    task = decoder_task(width=1024, batch_size=64, length=2048)
    plenty = explain_cluster(task, "A100 80GB x 4", PlanRequest())
    assert plenty.best.plan.micro_batch is None
    # The driver, libraries and exchanges take about three GiB more, whatever the model is.
    budget = plenty.best.memory.peak // 2 + 3 * 2**30
    tight = explain_cluster(task, "A100 80GB x 4", PlanRequest(budget=budget))
    assert tight.verdict == "FITS"
    assert tight.best.plan.micro_batch is not None or tight.best.plan.recompute == "blocks"
    assert tight.best.memory.peak < plenty.best.memory.peak
    pinned = explain_cluster(task, "A100 80GB x 4", PlanRequest(pins={"micro_batch": 4}))
    assert {c.plan.micro_batch for c in pinned.candidates} == {4}


def test_devices_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UsageError, match="must divide the batch.*48 devices and batch_size=64"):
        explain_cluster(decoder_task(), "H100 x 48", PlanRequest())


def net_with_statistics():
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10))


def test_a_large_batch_with_statistics_stays_whole(monkeypatch):
    monkeypatch.setattr("volano.planner.cluster.explain_cluster._LOOKED_AT_FLOPS", 0)
    found = explain_cluster(make_task(model=net_with_statistics), "A100 x 2", PlanRequest())
    assert {c.passes for c in found.candidates} == {1}
    assert any("takes statistics of it" in notice for notice in found.notices)


def test_a_batch_with_statistics_is_looked_at():
    found = explain_cluster(make_task(model=net_with_statistics), "A100 x 8", PlanRequest())
    assert {c.passes for c in found.candidates} == {1}
    exact = dataclasses.replace(make_task(model=net_with_statistics), tolerance="exact")
    found = explain_cluster(exact, "A100 x 8", PlanRequest())
    assert {c.plan.sharding for c in found.candidates} == {"none"}
    assert found.best.plan.precision == "fp32"


def test_blocks_whose_recomputation_cannot_be_predicted_are_left_out(monkeypatch):
    from volano.device.isolated import IsolatedError
    from volano.planner.cluster import explain_cluster as module

    predict = module.predict_memory

    def failing(task, plan, **options):
        if plan.recompute == "blocks":
            raise IsolatedError("no", got="another number of tensors")
        return predict(task, plan, **options)

    monkeypatch.setattr(module, "predict_memory", failing)
    found = explain_cluster(decoder_task(), "H100 x 2", PlanRequest())
    assert {c.plan.recompute for c in (*found.candidates, *found.curve)} == {"none"}
    assert any("recompute=blocks is left out: another number" in n for n in found.notices)
