"""Runs side by side."""

from __future__ import annotations

import json

import pytest

from report.folders import make_run, write, write_lines
from report.test_page import HOSTILE, Outline
from volano.errors import UsageError
from volano.report import write_comparison


@pytest.fixture
def runs(tmp_path):
    """Two image runs that differ in a dial, a knob, a figure and a version."""
    first, second = make_run(tmp_path / "first", "image"), make_run(tmp_path / "second", "image")
    metrics = {"test_accuracy": 0.97, "valid_loss": 1.2, "train_loss": 1.02}
    for name, changes in (
        ("run.json", {"metrics": metrics, "versions": {"torch": "2.14.1"}}),
        ("task.json", {"batch_size": 128}),
        ("plan.json", {"precision": "fp32"}),
    ):  # fmt: skip
        write(second / name, {**json.loads((second / name).read_text()), **changes})
    return first, second


def page_of(runs, out) -> Outline:
    return Outline(write_comparison(runs, out).read_text(encoding="utf-8"))


def rows_of(page: Outline) -> str:
    return " ".join(page.text.split())


def test_figures_curves_and_differences(runs, tmp_path):
    page = page_of(runs, tmp_path / "page.html")
    text = rows_of(page)
    assert "Test accuracy 95.24 % 97.00 %" in text
    assert "In the task: another experiment" in text
    assert "batch size 64 128" in text
    assert "precision bf16 fp32" in text
    assert "torch 2.13.0 2.14.1" in text
    assert "memory format" not in text  # the same in both
    labels = [attributes.get("aria-label") or "" for attributes in page.all("svg")]
    for title in ("Training loss", "Validation loss", "Validation accuracy", "Throughput"):
        (label,) = [label for label in labels if label.startswith(title)]
        assert "first: " in label
        assert "second: " in label


def test_the_better_figure_is_marked(runs, tmp_path):
    write_comparison(runs, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert '<td class="best">97.00 %</td>' in text
    assert '<td class="best">1.11</td><td>1.2</td>' in text  # of a loss the smaller one
    assert '<td class="best">1.02' not in text  # equal


def test_figures_of_unlike_tasks_are_not_ranked(tmp_path):
    runs = [make_run(tmp_path / kind, kind) for kind in ("image", "text", "video", "python")]
    write(
        runs[1] / "run.json",
        {**json.loads((runs[1] / "run.json").read_text()), "metrics": {"valid_loss": 0.1}},
    )
    page = page_of(runs, tmp_path / "page.html")
    assert not [attributes for attributes in page.all("td") if attributes.get("class") == "best"]


@pytest.mark.parametrize("valid", [{"content_digest": "other"}, {}, None])
def test_figures_on_other_validation_data_are_not_ranked(runs, tmp_path, valid):
    for run in runs if valid != {"content_digest": "other"} else runs[1:]:
        write(run / "task.json", {**json.loads((run / "task.json").read_text()), "valid": valid})
    page = page_of(runs, tmp_path / "page.html")
    assert not [attributes for attributes in page.all("td") if attributes.get("class") == "best"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / part / "run", "python") for part in ("a", "b")]
    text = page_of(runs, tmp_path / "page.html").text
    for run in runs:
        assert str(run) in text


def test_hostile_and_missing(tmp_path):
    runs = [make_run(tmp_path / name, "image", metrics={HOSTILE: 1.0}) for name in ("<i>a", "b")]
    for path in list(runs[1].iterdir()):
        if path.name != "run.json":
            path.unlink()
    write(runs[0] / "task.json", {HOSTILE: {HOSTILE: HOSTILE}})
    page = page_of(runs, tmp_path / "page.html")
    assert not page.all("script")
    assert "b: metrics.jsonl is not there" in page.text


def test_how_many_may_be_compared(runs, tmp_path):
    with pytest.raises(UsageError, match="A comparison must have 2 to 12 runs; got 13"):
        write_comparison([runs[0]] * 13, tmp_path / "page.html")
    with pytest.raises(UsageError, match=r"must hold run\.json"):
        write_comparison([runs[0], tmp_path], tmp_path / "page.html")


@pytest.mark.parametrize("value", [None, True, "x", 1e308, [None], {"a": None}], ids=repr)
def test_any_field_may_be_something_else(runs, tmp_path, value):
    run = runs[1]
    for name in ("run.json", "task.json", "plan.json"):
        whole = json.loads((run / name).read_text())
        for field in whole:
            write(run / name, {**whole, field: value})
            page_of(runs, tmp_path / "page.html")
        write(run / name, whole)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for field in records[0]:
        write_lines(run / "metrics.jsonl", [{**record, field: value} for record in records])
        page_of(runs, tmp_path / "page.html")
