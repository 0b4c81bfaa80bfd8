"""Classifiers of texts on a pretrained encoder."""

import csv

import pytest
import torch

import volano
from pretrained_networks import WORDS, save_small_encoder
from volano.apps.text.classify.begin import encoder_of
from volano.apps.text.classify.encoder import encoder_batch
from volano.errors import CheckpointError, UsageError

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "table.csv"
    generator = torch.Generator().manual_seed(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(120):
            words = WORDS[:3] if number % 2 else WORDS[3:6]
            places = torch.randint(0, 3, (2,), generator=generator).tolist()
            rest = torch.randint(6, 11, (3,), generator=generator).tolist()
            text = " ".join([words[p] for p in places] + [WORDS[p] for p in rest])
            writer.writerow([f"{text} {'day ' * (number % 20)}", ("bad", "good")[number % 2]])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_small_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def run(table, folder, tmp_path_factory):
    return volano.train(
        "text", table, classify=True, from_=f"hf:{folder}", minutes=0.2,
        out=tmp_path_factory.mktemp("runs") / "run", device="cpu",
    )  # fmt: skip


def test_a_run_says_what_it_does(run):
    said = " ".join(run.notices)
    assert "16 features, mean of at most 16 tokens" in said
    assert "are longer than the 16 tokens that the encoder takes: cut" in said
    assert "trainable: 34 of" in said or "tune=all" in said
    assert run.metrics["kept"] == "pretrained encoder"
    assert run.metrics["test_accuracy"] > 0.8


def test_eval_and_predict_need_nothing_but_the_run(run, tmp_path):
    model = volano.load(run.path)
    assert model.evaluate()["accuracy"] == pytest.approx(run.metrics["test_accuracy"])
    (tmp_path / "a.txt").write_text("a good fine day")
    assert model.predict(tmp_path / "a.txt")[0].label == "good"


def test_all_layers_are_trained_and_the_best_weights_kept(table, folder, tmp_path):
    run = volano.train(
        "text", table, classify=True, from_=str(folder), tune="all", minutes=0.15,
        keep="best", patience=2, out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    assert run.model.tune == "all"
    assert any("texts that are not trained on" in text for text in run.notices)
    assert "valid_loss" in run.metrics


def test_another_tokenizer_in_the_folder_is_refused(run, tmp_path):
    file = run.path / "tokenizer.json"
    content = file.read_bytes()
    try:
        file.write_bytes(content.replace(b'"day"', b'"dax"'))
        with pytest.raises(CheckpointError, match="with which the run was made"):
            volano.load(run.path)
    finally:
        file.write_bytes(content)


def test_an_encoder_is_one_of_transformers():
    assert encoder_of(None) is None
    assert (encoder_batch(1000), encoder_batch(40), encoder_batch(3)) == (32, 5, 1)
    with pytest.raises(UsageError, match="must be one of transformers"):
        encoder_of("timm:resnet18")


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, in its exporter
@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_a_program_of_ids(run, tmp_path, to):
    result = volano.load(run.path).export(to, tmp_path / f"a.{to}")
    assert result["largest_difference"] < 1e-4
    assert result["classes"] == ["bad", "good"]


def test_a_folder_of_transformers_is_a_network_to_begin_with(run, tmp_path):
    model = volano.load(run.path)
    for _ in range(2):  # the second takes the place of the first
        result = model.export("hf", tmp_path / "hf")
    assert result["largest_difference"] < 1e-4
    assert "with Volano" in (tmp_path / "hf" / "README.md").read_text()
    again = encoder_of(f"hf:{tmp_path / 'hf'}")
    assert (again.pooling, again.num_features) == ("mean", 16)
    assert again.tokenizer.digest == model._tokenizer.digest
    own = encoder_of(str(run.path))
    texts = own.tokenizer.encode(["a good day", "bad"]).padded([0, 1])
    with torch.no_grad():
        assert torch.equal(own.trunk(*texts), model.module.trunk(*texts))
    assert all(parameter.requires_grad for parameter in own.trunk.parameters())
    (tmp_path / "run.json").write_text('{"schema_version": 1, "source": {"kind": "image"}}')
    with pytest.raises(UsageError, match="must be a classifier of texts on a pretrained encoder"):
        encoder_of(str(tmp_path))
