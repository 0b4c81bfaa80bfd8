"""What the report shows of labels and numbers."""

import pytest

from report.folders import make_run, write
from report.test_page import ids_of, page_of
from volano.record.read_run import read_run
from volano.report.figures import figures_of
from volano.report.targets.figures import targets_of

LABEL = {"average_precision": 0.9, "precision": 0.8, "recall": 0.7, "f1": 0.75, "support": 12}
LABELS = {
    "num_examples": 40, "per_label": {"sky": LABEL, "sea": {**LABEL, "average_precision": None}},
    "labels": ["sky", "sea"],
}  # fmt: skip
NUMBER = {"mae": 1.25, "rmse": 2.0, "r2": 0.5, "baseline_mae": 4.0, "pairs": [[0, 1], [10, 8]]}
NUMBERS = {"num_examples": 2, "per_number": {"price": NUMBER}, "numbers": ["price"]}


def run_with(folder, kind, scores, **metrics):
    run = make_run(folder / "run", kind, **({"metrics": metrics} if metrics else {}))
    for name in ("top-losses.png", "top-losses.json"):
        (run / name).unlink(missing_ok=True)
    write(run / "eval-test.json", scores)
    return run


def test_labels(tmp_path):
    run = run_with(tmp_path, "image", LABELS)
    page = page_of(run)
    assert ids_of(page)[0] == "results"
    for text in ("Each label, on 40 examples", "Average precision", "90.0 %", "sea"):
        assert text in page.text
    assert "cannot be shown" not in page.text


def test_numbers(tmp_path):
    found = targets_of(read_run(run_with(tmp_path, "image", NUMBERS)))
    assert found.rows[0].figures == ("1.25", "2", "0.5", "4")
    (plot,) = found.plots
    assert (plot.low, plot.high) == ("0", "10")
    assert plot.points == ((0.0, 900.0), (1000.0, 200.0))
    page = page_of(tmp_path / "run")
    assert "Predicted over true, from 0 to 10" in page.text


def test_candidates_and_many_labels(tmp_path):
    many = {f"label {n}": {**LABEL, "average_precision": n / 100} for n in range(60)}
    scores = {**LABELS, "per_label": many, "candidates": {"a bag": 0.4, "a head": 0.5}}
    found = targets_of(read_run(run_with(tmp_path, "text", {**scores, "kept": "a head"})))
    assert (len(found.rows), found.num_left_out) == (40, 20)
    assert found.candidates == (("a bag", "0.4", False), ("a head", "0.5", True))


def test_what_contradicts_itself_is_missing(tmp_path):
    broken = {**NUMBERS, "per_number": {"price": {**NUMBER, "pairs": "many"}}}
    page = page_of(run_with(tmp_path, "image", broken))
    assert "targets cannot be shown: eval-test.json: no pairs" in page.text


@pytest.mark.parametrize(
    ("metrics", "first", "beside"),
    [
        (
            {
                "test_mean_average_precision": 0.9, "baseline_mean_average_precision": 0.2,
                "test_mean_average_precision_interval": [0.85, 0.95], "num_test": 40,
            },
            ("Test mean average precision", "90.00 %"),
            "label frequencies: 20.00 %; 40 examples; 95 % interval 85.00 % to 95.00 %",
        ),
        (
            {"test_mae": 1.25, "test_mae_interval": [1, 1.5], "baseline_mae": 4.0, "num_test": 40},
            ("Test MAE", "1.25"),
            "always the mean: 4; 40 examples; 95 % interval 1 to 1.5",
        ),
    ],
)  # fmt: skip
def test_final_figures_stand_beside_the_trivial_answer(tmp_path, metrics, first, beside):
    run = make_run(tmp_path / "run", "image", metrics=metrics)
    (figure,) = figures_of(read_run(run))
    assert (figure.name, figure.value) == first
    assert figure.beside == beside
