"""A classifier of transformers as a folder that ``from_pretrained`` loads."""

import pytest

import volano
from digit_tables import write_numbers_table
from pretrained_networks import save_small_vit
from volano.errors import UsageError


def test_a_folder_is_loaded_with_its_classes_and_its_processor(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = save_small_vit(tmp_path / "vit")
    run = volano.train(
        "image", from_=f"hf:{folder}", epochs=1, tune="head", out=tmp_path / "run",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    result = volano.load(run.path).export("hf", tmp_path / "hf")
    assert result["largest_difference"] < 1e-3
    again = transformers.AutoModelForImageClassification.from_pretrained(str(tmp_path / "hf"))
    assert again.config.id2label[3] == "3"
    assert "hf:" in (tmp_path / "hf" / "README.md").read_text()
    again = volano.train(
        "image", from_=f"hf:{tmp_path / 'hf'}", epochs=1, out=tmp_path / "again",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    assert again.metrics["test_accuracy"] > again.metrics["baseline_accuracy"]


def test_other_networks_have_other_formats(tmp_path):
    run = volano.train(
        "image", from_="pretrained_networks:small", epochs=1, tune="head", out=tmp_path / "run",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    with pytest.raises(UsageError, match="Only a classifier of transformers"):
        volano.load(run).export("hf", tmp_path / "hf")


def test_numbers_are_given_in_their_units(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    table = write_numbers_table(tmp_path, 60)
    run = volano.train(
        "image", table, target_columns="value,ink", from_=f"hf:{save_small_vit(tmp_path / 'vit')}",
        epochs=1, tune="head", out=tmp_path / "run", flip="no", plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    assert "R2 to expect of a linear head: " in " ".join(run.notices)
    model = volano.load(run.path, device="cpu")
    (row,) = model.predict(tmp_path / "3.png")
    assert 4900 < row.numbers["ink"] < 5800
    assert model.export("hf", tmp_path / "hf")["largest_difference"] < 0.1
    again = transformers.AutoModelForImageClassification.from_pretrained(str(tmp_path / "hf"))
    assert again.config.problem_type == "regression"
    assert list(again.config.id2label.values()) == ["value", "ink"]
    assert "a number in the unit of the table" in (tmp_path / "hf" / "README.md").read_text()
