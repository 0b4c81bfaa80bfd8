"""Several labels and numbers of texts, from a table to predictions and reports."""

import json

import pytest

import volano
from pretrained_networks import save_small_encoder
from volano.apps.kinds import options_for
from volano.errors import DataError, UsageError
from volano.training import RunFolder

PLAIN = {"plan": volano.Plan.baseline("cpu"), "observer": volano.Observer(), "minutes": 0.06}
KINDS = ("good", "bad", "day", "film")


def write_rows(path, make, num=96, train=72):
    lines = []
    for number in range(num):
        words = [word for place, word in enumerate(KINDS) if number >> place & 1]
        text = " ".join([*words, "the", "book", f"a{number % 7}"])
        split = "train" if number < train else "test"
        lines.append(json.dumps({"text": text, "split": split, **make(words)}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Lists of the words of a kind that a text holds; every sixteenth text has none."""
    return write_rows(tmp_path_factory.mktemp("l") / "t.jsonl", lambda words: {"tags": words})


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Stars: one for each word, two for good."""
    return write_rows(
        tmp_path_factory.mktemp("n") / "t.jsonl",
        lambda words: {"stars": 100.0 + len(words) + ("good" in words), "empty": None},
    )


def test_lists_are_labels(labels, tmp_path):
    run = volano.train(
        "text", labels, classify=True, out=tmp_path / "run",
        **{**PLAIN, "minutes": 0.2},  # ten epochs on a busy machine, too
    )  # fmt: skip
    assert "column tags holds lists" in " ".join(run.notices)
    assert run.metrics["kept"] == "bag of n-grams"
    assert run.metrics["test_mean_average_precision"] > 0.9
    model = volano.load(run.path, device="cpu")
    found = model.evaluate()
    assert found["micro_f1"] == pytest.approx(run.metrics["test_micro_f1"])
    (tmp_path / "new.txt").write_text("good film the book")
    (row,) = model.predict(tmp_path / "new.txt")
    assert {name for name, _ in row.top[:2]} == {"good", "film"}
    assert "Each label" in (run.path / "report.html").read_text()
    lines = labels.read_text().splitlines()
    changed = [line.replace('["good"]', '["bad"]') for line in lines]
    labels.write_text("\n".join(changed))
    notices = " ".join(model.evaluate()["notices"])
    labels.write_text("\n".join(lines))
    assert "have another class now, and are not evaluated" in notices


def test_a_column_of_numbers(numbers, tmp_path):
    run = volano.train(
        "text", numbers, target="numbers", target_columns="stars", out=tmp_path / "run",
        **{**PLAIN, "minutes": 0.1},  # ten epochs on a busy machine, too
    )  # fmt: skip
    assert run.metrics["test_mae"] < 0.6 * run.metrics["baseline_mae"]
    spec = json.loads((run.path / "text.json").read_text())
    assert spec["target"]["means"][0] == pytest.approx(102.5, abs=0.3)
    model = volano.load(run.path, device="cpu")
    (tmp_path / "new.txt").write_text("good bad day film the book")
    assert model.predict(tmp_path / "new.txt")[0].numbers["stars"] > 103.5
    again = volano.apps.kinds.application_of_run(RunFolder.open(run.path)).from_run(
        RunFolder.open(run.path)
    )
    assert again.target.deviations == pytest.approx(tuple(spec["target"]["deviations"]))


def test_numbers_on_an_encoder(numbers, tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    folder = save_small_encoder(tmp_path / "bert")
    run = volano.train(
        "text", numbers, target_columns="stars", target="numbers", tune="head",
        from_=f"hf:{folder}", out=tmp_path / "run", **PLAIN,
    )  # fmt: skip
    assert "R2 to expect of a linear head: " in " ".join(run.notices)
    model = volano.load(run.path, device="cpu")
    assert model.evaluate()["num_examples"] == 24
    result = model.export("hf", tmp_path / "hf")
    assert (result["target"], result["largest_difference"] < 0.1) == ("numbers", True)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "stars"})
    assert "a number in the unit" in (tmp_path / "hf" / "README.md").read_text()


def test_a_target_asks_for_labelled_texts():
    assert options_for("text", {"path": "t.csv", "target": "numbers"})[0] == "classify"
    assert options_for("text", {"path": "t.csv"})[0] == "text"


def test_what_cannot_be(labels, numbers, tmp_path):
    def read(path, **options):
        volano.train("text", path, out=tmp_path / "run", **options, **PLAIN)

    with pytest.raises(DataError, match=r"finite number to predict; got 96 without.*column empty"):
        read(numbers, target="numbers", target_columns="empty")
    with pytest.raises(UsageError, match="classes must come with one column"):
        read(numbers, target="classes", target_columns="stars,empty")
    only = tmp_path / "only.jsonl"
    lines = [line for line in labels.read_text().splitlines() if "train" in line]
    only.write_text(
        "\n".join([*lines, '{"text": "x", "split": "test", "tags": ["good", "unseen"]}'])
    )
    with pytest.raises(DataError, match="Every label must have readable texts to train on; got no"):
        read(only, classify=True)
