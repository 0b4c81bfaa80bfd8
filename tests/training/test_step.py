"""A step against theory and against raw PyTorch."""

import functools
import json

import pytest
import torch
from torch import nn

import volano
from conftest import classification, classification_with_accuracy, make_mlp
from volano import Plan
from volano.errors import NumericsError, ObjectiveError
from volano.training import Session


def session(task, plan=None) -> Session:
    notices = []
    made = Session(task, plan or Plan.baseline(), on_notice=notices.append)
    made.notices = notices
    return made


def gradients(task, plan):
    """The gradient that reaches the optimizer in the first step."""
    made = session(task, plan)
    made.step_once(next(iter(made.feed.batches(made.order.keys(0, 1)))), 0)
    return [parameter.grad for parameter in made.model.parameters()]


def in_float64(task_fields):
    def model():
        return make_mlp().double()

    def objective(module, batch):
        return classification(module, (batch[0].double(), batch[1]))

    return {"model": model, "objective": objective, **task_fields}


@pytest.mark.parametrize("micro_batch", [1, 7, 16, 31])
def test_micro_batches_add_up_to_the_batch(make_task, micro_batch):
    task = make_task(**in_float64({}))
    whole = gradients(task, Plan.baseline())
    parts = gradients(task, Plan.baseline().pin(micro_batch=micro_batch))
    for expected, got in zip(whole, parts, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("micro_batch", [1, 5, 16])
def test_a_weighted_loss_adds_up_too(make_task, micro_batch):
    def objective(model, batch):
        inputs, labels = batch
        weights = (
            labels + 1
        ).double()  # uneven over the micro-batches, like tokens of a padded batch
        losses = nn.functional.cross_entropy(model(inputs.double()), labels, reduction="none")
        return volano.Loss(
            total=(losses * weights).sum(),
            weight=weights.sum(),
            metrics={"error": (losses * weights).sum() / weights.sum()},
        )

    task = make_task(**in_float64({"objective": objective}))
    for expected, got in zip(
        gradients(task, Plan.baseline()),
        gradients(task, Plan.baseline().pin(micro_batch=micro_batch)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
    made = session(task, Plan.baseline().pin(micro_batch=micro_batch))
    result = made.step_once(next(iter(made.feed.batches(made.order.keys(0, 1)))), 0)
    torch.testing.assert_close(result.metrics["error"], result.loss)


def test_a_wrong_weight_would_be_seen(make_task):
    # The control of the two tests above: a mean of means over uneven micro-batches is another
    # gradient.
    def objective(model, batch):
        inputs, labels = batch
        return classification(model, (inputs.double(), labels)) / len(labels)

    task = make_task(**in_float64({"objective": objective}))
    whole = gradients(task, Plan.baseline())
    parts = gradients(task, Plan.baseline().pin(micro_batch=5))
    assert not torch.allclose(whole[0], parts[0], rtol=1e-3)


def raw_loop(task, steps, *, clip=None):
    """Plain PyTorch on the same order."""
    torch.manual_seed(task.seed)
    model = task.model()
    optimizer = task.optimizer(model.parameters())
    inputs, labels = task.data.tensors
    order = volano.data.order.Order(
        num_examples=len(task.data), batch_size=task.batch_size, seed=task.seed
    )
    base = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        rows = torch.from_numpy(order.key(step).indices.copy())
        optimizer.param_groups[0]["lr"] = base * task.schedule((step + 0.5) / task.num_steps)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW], ids=["SGD", "AdamW"])
@pytest.mark.parametrize("feed", ["ring", "resident"])
def test_the_baseline_is_bitwise_the_raw_loop_after_50_steps(
    make_task, quiet, tmp_path, optimizer, feed
):
    task = make_task(
        optimizer=functools.partial(optimizer, lr=0.01),
        duration="50st",
        schedule=volano.cosine(warmup=0.1),
        clip_norm=0.5,
    )
    run = volano.train(
        task, plan=Plan.baseline().pin(feed=feed), out=tmp_path / "run", observer=quiet
    )
    reference = raw_loop(task, 50, clip=0.5)
    for got, expected in zip(run.model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_dropout_is_drawn_from_seed_and_step_alone(make_task, quiet, tmp_path):
    task = make_task(model=functools.partial(make_mlp, dropout=0.5))
    torch.manual_seed(1)
    first = volano.train(task, plan=Plan.baseline(), out=tmp_path / "1", observer=quiet)
    torch.manual_seed(2)
    torch.rand(100)
    second = volano.train(
        task, plan=Plan.baseline().pin(workers=1), out=tmp_path / "2", observer=quiet
    )
    other = volano.train(
        make_task(model=task.model, seed=4),
        plan=Plan.baseline(),
        out=tmp_path / "3",
        observer=quiet,
    )
    assert torch.equal(first.model[0].weight, second.model[0].weight)
    assert not torch.equal(first.model[0].weight, other.model[0].weight)


def test_the_callers_random_state_is_the_callers(make_task, quiet, tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    volano.train(
        make_task(model=functools.partial(make_mlp, dropout=0.5)),
        out=tmp_path / "run",
        observer=quiet,
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_is_keyed_by_seed_and_step(make_task, quiet, tmp_path):
    drawn = []

    def augment(batch, generator):
        drawn.append(torch.rand(2, generator=generator).tolist())
        return batch

    task = make_task(augment=augment)
    volano.train(task, plan=Plan.baseline(), out=tmp_path / "1", observer=quiet)
    once, drawn = drawn, []
    torch.rand(5)
    volano.train(task, plan=Plan.baseline().pin(micro_batch=8), out=tmp_path / "2", observer=quiet)
    # Whether a batch may be split was found out before, on batches of the run.
    assert drawn[-len(once) :] == once
    assert len({tuple(values) for values in once}) == task.num_steps


def test_the_default_plan_learns_the_same(make_task, quiet, tmp_path):
    """Rounding differs between the implementations, the trajectory does not: 32 steps, relative to
    the weights."""
    task = make_task(
        optimizer=functools.partial(torch.optim.AdamW, lr=1e-3),
        objective=classification_with_accuracy,
    )
    baseline = volano.train(task, plan=Plan.baseline(), out=tmp_path / "1", observer=quiet)
    default = volano.train(task, out=tmp_path / "2", observer=quiet)
    assert default.plan.optimizer == "fused"
    for got, expected in zip(default.model.parameters(), baseline.model.parameters(), strict=True):
        assert (got - expected).norm() / expected.norm() < 1e-4
    assert default.metrics["valid_accuracy"] == pytest.approx(
        baseline.metrics["valid_accuracy"], abs=0.02
    )


def test_bf16_stays_near_fp32(make_task):
    task = make_task()
    exact = torch.cat([gradient.flatten() for gradient in gradients(task, Plan.baseline())])
    narrow = torch.cat(
        [gradient.flatten() for gradient in gradients(task, Plan.baseline().pin(precision="bf16"))]
    )
    assert not torch.equal(exact, narrow)
    assert nn.functional.cosine_similarity(exact, narrow, dim=0) > 0.999


class TestRefusals:
    @pytest.mark.parametrize(
        ("objective", "message"),
        [
            (lambda model, batch: model(batch[0]), "one number per batch"),
            (
                lambda model, batch: classification(model, batch).item(),
                "must return a scalar tensor",
            ),
        ],
    )
    def test_an_objective_that_is_no_loss(self, make_task, quiet, tmp_path, objective, message):
        with pytest.raises(ObjectiveError, match=message):
            volano.train(make_task(objective=objective), out=tmp_path / "run", observer=quiet)
        assert quiet.ends == ["failed"]

    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_a_first_loss_that_is_no_number_does_not_reach_the_weights(
        self, make_task, quiet, tmp_path, factor
    ):
        task = make_task(objective=lambda model, batch: classification(model, batch) * factor)
        made = session(task)
        before = made.model[0].weight.detach().clone()
        assert made.step_once(next(iter(made.feed.batches(made.order.keys(0, 1)))), 0).is_bad
        assert torch.equal(made.model[0].weight, before)
        with pytest.raises(NumericsError, match=f"at step 1 they were not; got loss {factor}"):
            volano.train(task, out=tmp_path / "run", observer=quiet)


class TestMeasuredChoices:
    def test_a_view_that_needs_contiguous_memory_gets_it(self, make_task):
        class LeNet(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 6 * 6, 10)

            def forward(self, x):
                return self.head(torch.relu(self.conv(x.view(-1, 1, 8, 8))).view(-1, 4 * 6 * 6))

        found = volano.explain(make_task(model=LeNet), forbid={"compile": True}, race=True)
        assert found.plan.memory_format == "contiguous"
        tried = [c for c in found.candidates if c.plan.memory_format == "channels_last"]
        assert tried
        assert all(c.status == "failed" and "view size" in c.reason for c in tried)

    def test_sparse_gradients_keep_their_optimizer(self, make_task, quiet, tmp_path):
        class Bag(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.head = nn.EmbeddingBag(17, 8, sparse=True), nn.Linear(8, 10)

            def forward(self, x):
                return self.head(self.embed((x * 16).long()))

        task = make_task(model=Bag, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
        run = volano.train(task, out=tmp_path / "run", observer=quiet)
        assert run.plan.optimizer == "as_given"
        refused = json.loads((run.path / "explanation.json").read_text())["refused"]
        assert any(r["value"] == "fused" and "sparse gradients" in r["reason"] for r in refused)

    def test_pinned_workers_without_effect_are_said(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=quiet, pins={"workers": 3})
        assert any("workers=3 has no effect" in notice for notice in run.notices)


def test_metrics_keep_no_graph(make_task):
    def objective(model, batch):
        loss = classification(model, batch)
        return volano.Loss(
            total=loss * len(batch[0]), weight=len(batch[0]), metrics={"again": loss}
        )

    for micro_batch in (None, 8):
        made = session(make_task(objective=objective), Plan.baseline().pin(micro_batch=micro_batch))
        result = made.step_once(next(iter(made.feed.batches(made.order.keys(0, 1)))), 0)
        assert not result.metrics["again"].requires_grad
        assert not result.loss.requires_grad


def test_frozen_modules_stay_frozen(make_task, quiet, tmp_path):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm1d(64).eval(), nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.norm(x))

    run = volano.train(make_task(model=Frozen), out=tmp_path / "run", observer=quiet)
    assert torch.equal(run.model.norm.running_mean, torch.zeros(64))
