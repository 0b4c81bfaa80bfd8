"""The model card of an exported network."""

import json

from volano.apps.model_card import write_card
from volano.training import RunFolder


def test_a_card_says_what_is_known(tmp_path):
    record = {
        "metrics": {"test_accuracy": 0.81234, "num_test": 60, "per_class": {}},
        "notices": ["trainable: 10 of 100 parameters"], "num_steps": 12,
        "source": {"origin": "photos", "dials": {"from_": "hf:vit", "tune": "head"}},
        "verdict": {"is_good": True, "reasons": ["81 % is better than 50 %"]},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(record))
    write_card(RunFolder(tmp_path), tmp_path, "a model of photos")
    card = (tmp_path / "README.md").read_text()
    for text in (
        "`hf:vit`",
        "| test accuracy | 0.8123 |",
        "- trainable: 10",
        "12 steps",
        "The run finished: 81 % is better than 50 %.",
        "# a model of photos",
    ):
        assert text in card
    assert "per class" not in card
    record["source"]["dials"] = {}
    (tmp_path / "run.json").write_text(json.dumps(record))
    write_card(RunFolder(tmp_path), tmp_path, "own", program="model.pt2")
    card = (tmp_path / "README.md").read_text()
    assert "library_name: pytorch" in card
    assert "Trained from nothing" in card
