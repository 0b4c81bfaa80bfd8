"""What is evaluated where parts weigh nothing, and where there is not enough memory."""

import collections
import contextlib
import math

import pytest
import torch
from torch import nn

import volano
from volano import Plan
from volano.device import Device
from volano.errors import RunError
from volano.task import split
from volano.training import Session
from volano.training.evaluate import means_of, sums_of


def over_the_first(count):
    """Examples whose label is below ``count`` weigh one, others nothing; the accuracy over none of
    them is NaN."""

    def objective(model, batch):
        inputs, labels = batch
        output, mask = model(inputs), labels < count
        losses = nn.functional.cross_entropy(output, labels, reduction="none")
        accuracy = (mask & (output.argmax(1) == labels)).sum() / mask.sum()
        return volano.Loss(
            total=(losses * mask).sum(), weight=mask.sum(), metrics={"accuracy": accuracy}
        )

    return objective


def session_of(task, **knobs):
    return Session(task, Plan.baseline().pin(**knobs), on_notice=lambda _: None, may_split=True)


def test_batches_of_any_length_are_passed_by_kernels_that_need_no_plan_for_each(
    make_task, monkeypatch
):
    seen: list[str] = []

    @contextlib.contextmanager
    def for_any_shape(_device):
        seen.append("begun")
        yield
        seen.append("ended")

    monkeypatch.setattr(Device, "attention_for_any_shape", for_any_shape)

    def objective(model, batch):
        seen.append("passed")
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    session_of(make_task(objective=objective)).evaluate()
    assert seen == ["begun", "passed", "passed", "ended"]


def test_parts_without_weight_count_nothing(make_task):
    task = make_task(objective=over_the_first(2), batch_size=8)
    whole, parts = session_of(task), session_of(task, micro_batch=1)
    batch = next(iter(whole.feed.batches(whole.order.keys(0, 1))))
    assert (batch[1] >= 2).any()
    ours, theirs = parts.step_once(batch, 0), whole.step_once(batch, 0)
    assert float(ours.metrics["accuracy"]) == pytest.approx(float(theirs.metrics["accuracy"]))
    assert parts.evaluate() == pytest.approx(whole.evaluate(), rel=1e-4)


def test_where_nothing_weighs_there_is_no_mean(make_task):
    found = session_of(make_task(objective=over_the_first(0))).evaluate()
    assert found.keys() == {"loss", "accuracy"}
    assert all(math.isnan(value) for value in found.values())


class Scarce:
    """Has no memory to evaluate more than ``most`` examples; ``sizes`` are those of which it
    had."""

    def __init__(self, most):
        self.most, self.sizes = most, []

    def __call__(self, model, batch):
        if len(batch[0]) > self.most:
            raise torch.OutOfMemoryError("none left")
        self.sizes.append(len(batch[0]))
        return over_the_first(10)(model, batch)


def test_a_batch_without_room_is_evaluated_in_halves(make_task):
    scarce = Scarce(10)
    found = session_of(make_task(objective=scarce)).evaluate()
    assert set(scarce.sizes[:4]) == {8}
    assert found == pytest.approx(
        session_of(make_task(objective=over_the_first(10))).evaluate(), rel=1e-5
    )
    with pytest.raises(
        RunError, match="An example must fit into the memory in evaluation; got none left"
    ):
        session_of(make_task(objective=Scarce(0))).evaluate()
    session = Session(make_task(objective=Scarce(10)), Plan.baseline(), on_notice=lambda _: None)
    with pytest.raises(torch.OutOfMemoryError):
        session.evaluate()  # whether it may be split is not known


class TestMetricsByName:
    """An objective that gives its metrics in another order, or leaves one out, for some batches."""

    @staticmethod
    def objective(model, batch):
        inputs, labels = batch
        output = model(inputs)
        is_first = bool((labels == 0).any())
        metrics = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
        if is_first:
            metrics = {"b": torch.tensor(2.0), "a": torch.tensor(1.0), "zeros": torch.tensor(5.0)}
        loss = nn.functional.cross_entropy(output, labels)
        return volano.Loss(total=loss * len(labels), weight=len(labels), metrics=metrics)

    def test_each_is_averaged_over_the_parts_that_have_it(self, make_task):
        labels = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1])
        data = torch.utils.data.TensorDataset(torch.randn(8, 64), labels)
        task = make_task(objective=self.objective, data=data, valid=data, batch_size=2)
        found = session_of(task).evaluate()
        assert (found["a"], found["b"], found["zeros"]) == (1.0, 2.0, 5.0)

    def test_sums_and_means(self):
        rows = [[2.0, 6.0, 1.0], [1.0, 3.0, 7.0], [0.0, 9.0, 9.0]]
        assert means_of(sums_of(rows, 3), ["m"]) == {"loss": 3.0, "m": 3.0}
        lacks = [[False, False, True], [False, False, False], [False, False, False]]
        assert means_of(sums_of(rows, 3, lacks), ["m"]) == {"loss": 3.0, "m": 7.0}
        assert math.isnan(means_of(sums_of(rows[2:], 3), ["m"])["loss"])


def flat(examples):
    """Texts of several lengths one behind the other, as EmbeddingBag takes them."""
    words = torch.tensor([word for text, _ in examples for word in text])
    starts = torch.tensor([0] + [len(text) for text, _ in examples[:-1]]).cumsum(0)
    return {"words": words, "starts": starts, "labels": torch.tensor([y for _, y in examples])}


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(50, 8), nn.Linear(8, 3)

    def forward(self, batch):
        return self.head(self.bag(batch["words"], batch["starts"]))


class Encoding(collections.UserDict):
    """A mapping that objectives read by attributes, as tokenizers give them."""

    def __getattr__(self, name):
        if name in self.data:
            return self.data[name]
        raise AttributeError(name)


def time_first(examples):
    x = torch.stack([x for x, _ in examples], 1)[:, :, None]
    return x, torch.tensor([y for _, y in examples])


def sparse(examples):
    x = torch.stack([x for x, _ in examples])
    return x.to_sparse(), torch.tensor([y for _, y in examples])


ROWS = [(torch.arange(8.0) * (i % 5) / 10, i % 3) for i in range(24)]
TEXTS = [(list(range(i % 7 + 2)), i % 3) for i in range(24)]
BATCHES = {
    "flat": (TEXTS, flat, Bag, lambda model, b: (model(b), b["labels"])),
    "time first": (
        ROWS, time_first, lambda: nn.LSTM(1, 3), lambda model, b: (model(b[0])[0][-1], b[1])
    ),
    "sparse": (ROWS, sparse, lambda: nn.Linear(8, 3), lambda model, b: (model(b[0]), b[1])),
    "encoding": (
        ROWS,
        lambda examples: Encoding(
            x=torch.stack([x for x, _ in examples]), y=torch.tensor([y for _, y in examples])
        ),
        lambda: nn.Linear(8, 3),
        lambda model, b: (model(b.x), b.y),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_of_any_form_is_trained_on_and_evaluated_whole(name, make_task):
    data, collate, model, outputs = BATCHES[name]

    def objective(network, batch):
        return nn.functional.cross_entropy(*outputs(network, batch))

    task = make_task(
        data=data, valid=data[:10], collate=collate, model=model, objective=objective,
        batch_size=8, duration="2st",
    )  # fmt: skip
    session = Session(task, Plan.baseline(), on_notice=lambda _: None)
    for batch in session.feed.batches(session.order.keys(0, 2)):
        session.step_once(batch, session.step)
        session.step += 1
    found = session.evaluate()["loss"]
    session.kept_model.eval()
    with torch.no_grad():  # the last batch has two examples, and counts as two
        means = [float(objective(session.model, collate(data[i:j]))) for i, j in ((0, 8), (8, 10))]
    assert found == pytest.approx((8 * means[0] + 2 * means[1]) / 10, rel=1e-6)


def test_micro_batches_and_evaluations_average_metrics_by_the_same_rule(make_task):
    def objective(model, batch):
        output, labels = model(batch[0]), batch[1]
        hits = (output.argmax(1) == labels).float()
        metrics = {f"of_{int(c)}": hits[labels == c].mean() for c in labels.unique()}
        total = nn.functional.cross_entropy(output, labels, reduction="sum")
        return volano.Loss(total=total, weight=len(labels), metrics=metrics)

    session = session_of(make_task(objective=objective, batch_size=8), micro_batch=2)
    batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
    result = session.step_once.gradient(batch, 0)
    parts = [objective(session.model, part).metrics for part in split(batch, 2)]
    for name in {name for part in parts for name in part}:
        values = [float(part[name]) for part in parts if name in part]
        assert float(result.metrics[name]) == pytest.approx(sum(values) / len(values))
