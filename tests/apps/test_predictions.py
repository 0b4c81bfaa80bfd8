"""Predictions as a sequence, as JSON, as a table and as a file."""

import csv
import json
from pathlib import Path

import pytest
import torch

from volano.apps.predictions import ClassPrediction, Predictions, class_predictions
from volano.data import Fault
from volano.errors import UsageError

ROWS = [
    ClassPrediction(path="a, b.png", top=(("cat", 0.75), ("dog", 0.25))),
    ClassPrediction(path='"ö".png', top=(("dog", 0.5), ("cat", 0.5))),
]


def predictions(**fields):
    return Predictions(**{"run": Path("runs/1"), "rows": ROWS, **fields})


def test_they_are_a_sequence():
    found = predictions()
    assert len(found) == 2
    assert found[0].label == "cat"
    assert found[-1].probability == 0.5
    assert found[1:] == ROWS[1:]
    assert [row.path for row in found] == ["a, b.png", '"ö".png']
    assert ROWS[0] in found
    with pytest.raises(IndexError):
        found[2]


def test_json_says_what_could_not_be_read():
    found = predictions(
        unreadable=(Fault(3, "bad.png", "no image"),), notices=("a run was left out",),
        more=(("top_k", 2),),
    )  # fmt: skip
    assert json.loads(json.dumps(found.to_json())) == {
        "run": "runs/1",
        "top_k": 2,
        "predictions": [
            {
                "path": "a, b.png",
                "top": [
                    {"class": "cat", "probability": 0.75},
                    {"class": "dog", "probability": 0.25},
                ],
            },
            {
                "path": '"ö".png',
                "top": [{"class": "dog", "probability": 0.5}, {"class": "cat", "probability": 0.5}],
            },
        ],
        "unreadable": [{"path": "bad.png", "reason": "no image"}],
        "notices": ["a run was left out"],
    }


def test_a_table_for_a_person_rounds_and_aligns_numbers():
    rows = [ClassPrediction(path="x", top=(("cat", 0.123456),))]
    table = predictions(rows=rows).table()
    assert table.columns == ["path", "top1", "p1"]
    assert table.rows == [["x", "cat", "0.1235"]]
    assert table.right == [2]


def test_a_file_keeps_every_digit_and_every_name(tmp_path):
    rows = [*ROWS, ClassPrediction(path="x\ny", top=(("cat", 0.123456), ("dog", 0.1)))]
    predictions(rows=rows).write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "top1", "p1", "top2", "p2"],
            ["a, b.png", "cat", "0.75", "dog", "0.25"],
            ['"ö".png', "dog", "0.5", "cat", "0.5"],
            ["x\ny", "cat", "0.123456", "dog", "0.1"],
        ]


def test_a_spreadsheet_runs_no_name(tmp_path):
    names = ["=1+1", "+cmd", "-x.png", "@a", "\tb", "\rc", "-1.5", "a=b"]
    rows = [ClassPrediction(path=name, top=(("=cat", 0.5),)) for name in names]
    predictions(rows=rows).write_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        (_, *found) = csv.reader(file)
    expected = [f"'{name}" for name in names[:6]] + names[6:]
    assert found == [[name, "'=cat", "0.5"] for name in expected]


def test_a_table_replaces_no_link(tmp_path):
    (tmp_path / "table.csv").symlink_to("elsewhere")
    with pytest.raises(UsageError, match="`csv` must name a new file"):
        predictions().write_csv(tmp_path / "table.csv")


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(UsageError, match="table must be writable; got .*nowhere"):
        predictions().write_csv(tmp_path / "nowhere" / "table.csv")
    with pytest.raises(UsageError, match="Is a directory"):
        predictions().write_csv(tmp_path)


class TestClassPredictions:
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])

    def test_the_likeliest_come_first(self):
        first, second = class_predictions(self.logits, ["x", "y"], ("a", "b", "c"), 2)
        assert [name for name, _ in first.top] == ["c", "b"]
        assert (second.label, second.path) == ("a", "y")
        expected = torch.softmax(self.logits[0], 0)[2].item()
        assert first.probability == pytest.approx(expected, abs=1e-6)

    def test_no_more_than_there_are(self):
        (first, _) = class_predictions(self.logits, ["x", "y"], ("a", "b", "c"), 100)
        assert len(first.top) == 3
        assert sum(p for _, p in first.top) == pytest.approx(1.0, abs=1e-5)

    @pytest.mark.parametrize("top_k", [0, -1])
    def test_at_least_one(self, top_k):
        with pytest.raises(
            UsageError, match=f"`top_k` must be a whole number above 0; got {top_k}"
        ):
            class_predictions(self.logits, ["x", "y"], ("a", "b", "c"), top_k)

    def test_of_nothing_there_is_nothing(self):
        assert class_predictions(torch.zeros(0, 3), [], ("a", "b", "c"), 2) == []
