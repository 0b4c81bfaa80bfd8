"""A classifier of transformers as a folder that ``from_pretrained`` loads."""

import json

import pytest
import torch

import volano
from digit_tables import write_numbers_table
from pretrained_networks import save_small_vit


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


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, in its exporter
def test_a_network_that_is_none_of_transformers_is_shared_as_a_program(tmp_path):
    run = volano.train(
        "image", from_="pretrained_networks:small", epochs=1, tune="head", out=tmp_path / "run",
        plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    result = volano.load(run).export("hf", tmp_path / "hf")
    assert result["largest_difference"] < 1e-3
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["input"], config["classes"][3]) == ([1, 8, 8], "3")
    program = torch.export.load(tmp_path / "hf" / "model.pt2").module()
    assert program(torch.zeros(5, 1, 8, 8, dtype=torch.uint8)).shape == (5, 10)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert 'torch.export.load("model.pt2")' in card
    assert "Fine-tuned from `pretrained_networks:small`" in card


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
