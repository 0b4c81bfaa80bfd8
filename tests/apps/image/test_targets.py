"""Several labels and numbers of images, from a table to predictions, reports and exports."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import volano
from digit_tables import write_labels_table, write_numbers_table
from volano.apps.image.application import ImageApplication
from volano.apps.image.flip import flip_is_label_preserving
from volano.apps.image.options import ImageOptions
from volano.apps.kinds import task_of
from volano.errors import DataError, UsageError
from volano.training import RunFolder

PLAIN = {"flip": "no", "plan": volano.Plan.baseline("cpu"), "observer": volano.Observer()}


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_labels_table(tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    return write_numbers_table(tmp_path_factory.mktemp("numbers"))


@pytest.fixture(scope="module")
def of_labels(labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "labels"
    return volano.train("image", labels, epochs=10, size="tiny", batch_size=32, out=out, **PLAIN)


@pytest.fixture(scope="module")
def of_numbers(numbers, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "numbers"
    return volano.train(
        "image", numbers, epochs=12, size="tiny", batch_size=32, target_columns="ink", out=out,
        **PLAIN,
    )  # fmt: skip


def test_labels_are_found_trained_and_better_than_their_frequencies(of_labels):
    said = " ".join(of_labels.notices)
    assert "column label holds several labels with ';' between them" in said
    assert "of 4 labels: 0 " in said
    metrics = of_labels.metrics
    assert metrics["test_mean_average_precision"] > metrics["baseline_mean_average_precision"] + 0.1
    record = json.loads((of_labels.path / "run.json").read_text())
    assert record["source"]["dials"]["target"] == "labels"
    assert record["verdict"]["interval"] == metrics["test_mean_average_precision_interval"]
    assert "Each label" in (of_labels.path / "report.html").read_text()
    assert not (of_labels.path / "eval-test.png").exists()
    top = json.loads((of_labels.path / "top-losses.json").read_text())["items"][0]
    assert top["probability"] is None


def test_a_run_of_labels_is_evaluated_and_predicts(of_labels, labels):
    model = volano.load(of_labels.path, device="cpu")
    found = model.evaluate()
    assert found["mean_average_precision"] == of_labels.metrics["test_mean_average_precision"]
    table, *_ = model.describe_evaluation(found)
    assert table.columns[0] == "label"
    (row,) = model.predict(labels.parent / "0.png", top_k=2)
    assert set(row.labels) <= set("0123")
    assert len(row.top) == 2
    assert "are among those that the run was trained on" in " ".join(
        model.evaluate(labels)["notices"]
    )


def test_the_split_of_labels_is_kept(of_labels, labels, tmp_path):
    record = json.loads((of_labels.path / "splits.json").read_text())
    assert record["classes"] == []
    assert {0, "0;1"} <= set(record["splits"]["train"]["labels"])
    again = ImageApplication.from_run(RunFolder.open(of_labels.path))
    first = ImageApplication.read(ImageOptions(path=str(labels), flip="no"))
    assert again.test.names == first.test.names
    assert torch.equal(again.train.labels, first.train.labels)
    assert not set(again.train.names) & set(again.test.names)
    # The Task of the folder is the Task of the run.
    task = task_of(RunFolder.open(of_labels.path))
    assert task.data[0][1].dtype == torch.uint8


def test_numbers_are_trained_in_deviations_and_told_in_units(of_numbers, numbers):
    metrics = of_numbers.metrics
    assert metrics["test_mae"] < 0.8 * metrics["baseline_mae"]
    assert metrics["valid_mae"] == pytest.approx(metrics["test_mae"], rel=0.2)
    model = volano.load(of_numbers.path, device="cpu")
    found = model.evaluate()
    assert found["mae"] == pytest.approx(metrics["test_mae"], rel=1e-6)
    assert Path(found["picture"]).name == "eval-test.png"
    rows = model.predict([numbers.parent / f"{number}.png" for number in range(3)])
    assert all(5000 < row.numbers["ink"] < 5700 for row in rows)
    assert rows.table().columns == ["path", "ink"]
    assert "Predicted over true" in (of_numbers.path / "report.html").read_text()


def test_programs_give_numbers_in_units(of_numbers, tmp_path):
    model = volano.load(of_numbers.path, device="cpu")
    result = model.export("pt2", tmp_path / "model.pt2")
    assert result["target"] == "numbers"
    images = torch.from_numpy(np.array(Image.open(_some(of_numbers))))[None, None]
    found = torch.export.load(tmp_path / "model.pt2").module()(images.repeat(2, 1, 1, 1))
    (row,) = model.predict(_some(of_numbers))
    # Predictions look at images again, moved, unless they are tiny.
    assert found[0].item() == pytest.approx(row.number, rel=0.01)


def _some(run):
    record = json.loads((run.path / "run.json").read_text())
    return Path(record["source"]["dials"]["path"]).parent / "0.png"


def test_a_head_is_solved_for_labels(labels, tmp_path):
    run = volano.train(
        "image", labels, from_="pretrained_networks:small", tune="head", epochs=1,
        out=tmp_path / "run", **PLAIN,
    )  # fmt: skip
    assert "mean average precision to expect of a linear head: " in " ".join(run.notices)
    again = ImageApplication.from_run(RunFolder.open(run.path))
    assert again.start.probe.weight.shape == (4, 16)


def test_columns_of_answers_are_labels(labels):
    read = ImageApplication.read(
        ImageOptions(path=str(labels), target_columns="zero,one", flip="no")
    )
    assert read.spec.answers.kind == "labels"
    assert read.spec.classes == ("zero", "one")


def test_classes_can_be_asked_for(labels):
    with pytest.raises(DataError, match="must have a label; got"):
        ImageApplication.read(ImageOptions(path=str(labels), target="classes"))
    with pytest.raises(UsageError, match="`target` must come with a table"):
        ImageApplication.read(ImageOptions(target="numbers"))
    with pytest.raises(UsageError, match="`target_columns` must name different columns"):
        ImageOptions(path=str(labels), target_columns="zero,,one")
    with pytest.raises(DataError, match="column of targets, named price"):
        ImageApplication.read(ImageOptions(path=str(labels), target_columns="price"))


def test_a_study_compares_by_the_kinds_own_figure():
    goals = {
        kind: ImageApplication.goal_of_study({"target": kind})
        for kind in (None, "classes", "labels", "numbers")
    }
    assert goals == {
        None: ("accuracy", "maximize"),
        "classes": ("accuracy", "maximize"),
        "labels": ("f1", "maximize"),
        "numbers": ("mae", "minimize"),
    }


def test_whether_numbers_allow_mirrored_images():
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (150, 1, 8, 8), generator=draw, dtype=torch.uint8)
    images += torch.randint(0, 190, (150, 1, 1, 1), generator=draw, dtype=torch.uint8)
    corners = images.clone()
    where = torch.rand(150, generator=draw)
    for number, share in enumerate(where.tolist()):
        corners[number, :, :, int(8 * share)] = 255
    keeps, reason = flip_is_label_preserving(corners, where[:, None].double(), 0)
    assert not keeps, reason
    rows = images.clone()
    for number, share in enumerate(where.tolist()):
        rows[number, :, int(8 * share)] = 255
    keeps, reason = flip_is_label_preserving(rows, where[:, None].double(), 0)
    assert keeps, reason
    assert "explains" in flip_is_label_preserving(images, where[:, None], 0)[1]  # there is nothing
    assert "too few" in flip_is_label_preserving(images[:30], where[:30, None], 0)[1]
