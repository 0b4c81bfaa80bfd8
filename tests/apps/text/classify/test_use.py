"""A classifier of texts, with a bag that was not trained."""

import json

import pytest
import torch

from volano.apps.text.classify.model_spec import BAG, ClassesSpec
from volano.apps.text.classify.use import ClassifyModel
from volano.errors import DataError, UsageError
from volano.training import RunFolder, save_weights

SPEC = ClassesSpec(classes=("animal", "tool"), kept=BAG, candidates={BAG: 0.5}, num_buckets=2**10)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    RunFolder(path).write_json("text.json", SPEC.to_json())
    torch.manual_seed(0)
    module = SPEC.build()
    torch.nn.init.normal_(module.table.weight)
    save_weights(module, path / "model.safetensors")
    return ClassifyModel.open(RunFolder(path), "cpu")


def test_files_are_predicted(model, tmp_path):
    (tmp_path / "x.txt").write_text("a horse")
    found = model.predict(tmp_path / "x.txt", top_k=9)
    assert len(found) == 1
    assert sorted(name for name, _ in found[0].top) == ["animal", "tool"]
    assert dict(found.more) == {"top_k": 2}
    assert model.predict([tmp_path / "x.txt"], top_k=1)[0].label == found[0].label


def test_what_is_not_there_is_told(model, tmp_path):
    with pytest.raises(UsageError):
        model.predict(tmp_path / "none.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises((DataError, UsageError)):
        model.predict(tmp_path / "empty")


def test_other_texts_of_its_classes_are_evaluated(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.csv").write_text("label,text\ntool,a hammer\ntool,a saw\nanimal,a horse\n")
    result = model.evaluate("more.csv")
    assert result["num_examples"] == 3
    assert result["baseline_accuracy"] == pytest.approx(2 / 3)
    assert (result["kept"], result["unreadable"]) == (BAG, [])
    kept = json.loads((model.path / "eval-more.json").read_text())
    assert kept["confusion"] == result["confusion"]
    table, accuracy = model.describe_evaluation(result)
    assert table.columns[1] == "texts"
    assert accuracy.startswith("accuracy ")


def test_texts_of_another_class_are_refused(model, tmp_path):
    (tmp_path / "more.csv").write_text("label,text\nplanet,mars\n")
    with pytest.raises(DataError, match="got also planet"):
        model.evaluate(tmp_path / "more.csv")
