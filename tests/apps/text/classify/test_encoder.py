"""Classifiers of texts on a pretrained encoder."""

import json

import pytest
import torch

import volano
from volano.apps.text.classify.encoder import choose_recipe, encoder_batch
from volano.errors import CheckpointError, DataError
from volano.pretrained.linear_probe import LinearProbe

pytest.importorskip("transformers", reason="transformers is not installed")


def test_a_run_says_what_it_does(encoder_run):
    said = " ".join(encoder_run.notices)
    assert "16 features, mean of at most 16 tokens" in said
    assert "are longer than the 16 tokens that the encoder takes: cut" in said
    assert "trainable: 34 of" in said or "tune=all" in said
    assert encoder_run.metrics["kept"] == "pretrained encoder"
    assert encoder_run.metrics["test_accuracy"] > 0.8


def test_eval_and_predict_need_nothing_but_the_run(encoder_run, tmp_path):
    model = volano.load(encoder_run.path)
    found = model.evaluate()
    assert found["accuracy"] == pytest.approx(encoder_run.metrics["test_accuracy"])
    assert "longer than the 16 tokens that the encoder takes: cut" in " ".join(found["notices"])
    (tmp_path / "a.txt").write_text("a good fine day")
    assert model.predict(tmp_path / "a.txt")[0].label == "good"
    assert model.predict(tmp_path / "a.txt").notices == ()
    both = model.predict(tmp_path / "a.txt", texts=["a poor bad day"])
    assert [(one.path.rpartition("/")[2], one.label) for one in both] == [
        ("a.txt", "good"), ("text 0", "bad"),
    ]  # fmt: skip
    assert model.predict(texts="a good fine day")[0].label == "good"
    with pytest.raises(DataError, match="none"):
        model.predict()
    (tmp_path / "b.txt").write_text("a good fine day " * 9)
    assert "1 of 1 texts (100.0%) are longer" in model.predict(tmp_path / "b.txt").notices[0]


def test_passes_over_the_texts_are_as_asked(encoder_table, encoder_folder, tmp_path):
    run = volano.train(
        "text", encoder_table, classify=True, from_=encoder_folder, tune="head", epochs=2,
        batch_size=20, out=tmp_path / "run", plan=volano.Plan.baseline("cpu"),
    )  # fmt: skip
    assert json.loads((run.path / "task.json").read_text())["batch_size"] == 20
    assert any(text.endswith("steps (2.0 epochs)") for text in run.notices)


def test_all_layers_are_trained_and_the_best_weights_kept(encoder_table, encoder_folder, tmp_path):
    run = volano.train(
        "text", encoder_table, classify=True, from_=str(encoder_folder), tune="all", minutes=0.15,
        keep="best", patience=2, out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    assert run.model.tune == "all"
    assert any("texts that are not trained on" in text for text in run.notices)
    assert "valid_loss" in run.metrics


def test_another_tokenizer_in_the_folder_is_refused(encoder_run, tmp_path):
    file = encoder_run.path / "tokenizer.json"
    content = file.read_bytes()
    try:
        file.write_bytes(content.replace(b'"day"', b'"dax"'))
        with pytest.raises(CheckpointError, match="with which the run was made"):
            volano.load(encoder_run.path)
    finally:
        file.write_bytes(content)


def test_the_texts_of_a_step():
    assert (encoder_batch(1000), encoder_batch(40), encoder_batch(3)) == (32, 5, 1)


def test_an_epoch_of_the_head_is_one_step_of_all_texts():
    one = torch.ones(1)
    probe = LinearProbe(
        center=one, scale=one, weight=one[None], bias=one, c=0.1, num_examples=88, curvature=1.0
    )
    assert choose_recipe("head", probe, 11).head_lr == 1 / 8
    assert choose_recipe("head", probe, 100).head_lr == 1.0
