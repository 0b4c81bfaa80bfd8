"""Several labels of an example, against figures worked out by hand and scikit-learn's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from volano.apps.targets.labels import Labels
from volano.errors import UsageError
from volano.report.verdict import judge

TARGET = Labels(names=("a", "b", "c"))
LOGITS = torch.tensor([[2.0, -1, -3], [1, 1, -3], [-1, 2, -3], [-2, -2, -3]])
TRUE = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.uint8)


@pytest.fixture(scope="module")
def scores():
    return TARGET.scores(LOGITS, TRUE)


def test_the_loss_is_summed_over_labels_and_counts_examples():
    loss = TARGET.loss(LOGITS, TRUE)
    own = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, TRUE.float())
    assert loss.total == pytest.approx(own.item() * 12)
    assert loss.weight == 4
    assert loss.metrics["f1"] == pytest.approx(f1_score(TRUE, LOGITS > 0, average="micro"))


def test_figures(scores):
    precisions = average_precision_score(TRUE[:, :2], LOGITS[:, :2], average=None)
    assert scores["mean_average_precision"] == pytest.approx(precisions.mean())
    assert scores["per_label"]["a"]["average_precision"] == pytest.approx(precisions[0])
    assert scores["per_label"]["c"]["average_precision"] is None
    assert scores["num_labels_without_examples"] == 1
    assert scores["micro_f1"] == pytest.approx(8 / 9)
    assert scores["macro_f1"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert scores["baseline_mean_average_precision"] == pytest.approx((0.75 + 0.5) / 2)
    # Always a: 6 / 9; a and b: 10 / 13.
    assert scores["baseline_micro_f1"] == pytest.approx(10 / 13)
    low, high = scores["mean_average_precision_interval"]
    # Nothing is wrong: as of a share of four.
    assert (low, high) == pytest.approx((0.5101, 1), abs=1e-4)


def test_the_interval_holds_the_truth():
    draw = np.random.default_rng(3)
    hits = 0
    for _ in range(8):  # uninformed scores: the truth is the frequency, a half
        some = torch.from_numpy(draw.normal(size=(100, 4)))
        low, high = TARGET_OF_FOUR.scores(some, torch.from_numpy(draw.integers(0, 2, (100, 4))))[
            "mean_average_precision_interval"
        ]
        hits += low <= 0.51 <= high
    assert hits >= 6


TARGET_OF_FOUR = Labels(names=("a", "b", "c", "d"))


def test_words_and_tables(scores):
    table, *sentences = TARGET.tables({**scores, "origin": "a table"}, "texts")
    assert table.title == "4 texts of a table"
    assert table.rows[2] == ("c", 0, "", "0.0000", "0.0000", "0.0000")
    assert "label frequencies: 0.6250" in sentences[0]
    assert sentences[-1].startswith("1 labels have no such example")
    lines = Labels.summary(TARGET.final_figures(scores), "texts")
    assert lines[0].startswith("test mean average precision 1.0000 on 4 texts   (95 %: ")
    assert lines[1].startswith("micro F1 0.8889, macro F1 0.6000   (always the commonest labels")


def test_the_verdict_stands_on_its_interval(scores):
    verdict = judge(num_steps=100, score=TARGET.score(scores))
    assert verdict.interval == tuple(scores["mean_average_precision_interval"])
    worse = {**scores, "mean_average_precision_interval": [0.5, 1.0]}
    (reason, *_) = judge(num_steps=100, score=TARGET.score(worse)).reasons
    assert reason.startswith(
        "4 test examples are too few to tell mean average precision from label fr"
    )


def test_predictions():
    first, *_, last = TARGET.predictions(LOGITS, ["w", "x", "y", "z"], 2)
    assert first.labels == ("a",)
    assert [name for name, _ in first.top] == ["a", "b"]
    assert first.cells[:3] == ["w", "a", "a"]
    assert last.labels == ()
    assert last.to_json()["labels"] == []
    with pytest.raises(UsageError, match="`top_k` must be"):
        TARGET.predictions(LOGITS, ["w", "x", "y", "z"], 0)


def test_what_was_read():
    part = SimpleNamespace(labels=TRUE)
    assert TARGET.data_in_words("texts", {"train": part, "test": part}, is_held_out=True) == (
        "texts: 4 to train on and 4 held out, of 3 labels: a 3, b 2, c 0; 1.25 an example; 1 have "
        "none"
    )


def test_one_label_alone():
    one = Labels(names=("is_cat",)).scores(LOGITS[:, :1], TRUE[:, :1])
    assert one["per_label"]["is_cat"]["f1"] == pytest.approx(0.8)
    assert one["baseline_micro_f1"] == pytest.approx(6 / 7)


def test_tests_without_any_label_have_figures():
    found = TARGET.scores(LOGITS, TRUE * 0)
    assert found["mean_average_precision"] == found["baseline_micro_f1"] == 0
    assert found["num_labels_without_examples"] == 3
