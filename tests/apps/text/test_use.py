"""A language model that was not trained."""

import json

import pytest
import torch

from volano.apps.text.network import Decoder
from volano.apps.text.use import TextModel
from volano.errors import DataError, UsageError
from volano.training import RunFolder, save_weights


@pytest.fixture(scope="module")
def model(read_text, tmp_path_factory):
    scratch, path = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("run")
    application = read_text(scratch, context=32, depth=2)
    folder = RunFolder(path)
    application.write(folder, scratch)
    folder.write_json("run.json", {"source": {"dials": application.resolved(1)}})
    torch.manual_seed(0)
    save_weights(Decoder(application.spec.shape()), path / "model.safetensors")
    return TextModel.open(folder, "cpu")


class TestGenerate:
    def test_pieces_are_the_text_and_figures_count_them(self, model):
        generation = model.generate(prompt="def", tokens=8, seed=1)
        pieces = list(generation)
        figures = generation.figures()
        assert "".join(pieces) == generation.text == figures["text"]
        assert figures["num_tokens"] <= 8
        assert figures["is_ended"] == (figures["num_tokens"] < 8)
        assert figures["run"] == str(model.path)

    def test_a_seed_makes_the_same_text(self, model):
        texts = {
            seed: "".join(model.generate(prompt="def", tokens=12, seed=seed)) for seed in (1, 2)
        }
        assert "".join(model.generate(prompt="def", tokens=12, seed=1)) == texts[1]

    def test_a_long_prompt_is_cut_and_it_is_said(self, model):
        long = model.generate(prompt="def parse " * 100, tokens=1)
        assert "longer than the context of 32 tokens" in long.notices[0]
        assert model.generate(prompt="def", tokens=1).notices == []

    def test_before_a_piece_there_are_no_figures_of_it(self, model):
        figures = model.generate(prompt="def", tokens=1).figures()
        assert (figures["num_tokens"], figures["text"]) == (0, "")

    def test_options_are_checked(self, model):
        with pytest.raises(UsageError, match="`tokens` must be"):
            model.generate(tokens=0)
        with pytest.raises(UsageError, match="`clips` is no option of writing text"):
            model.generate(clips=2)


class TestEvaluate:
    def test_other_text(self, model, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        text = "def add(one, other):\n    return one + other\n" * 5
        (tmp_path / "more.txt").write_text(text)
        result = model.evaluate("more.txt")
        assert result["num_bytes"] == len(text)
        assert result["baselines"].keys() == {"xz", "bz2"}
        assert result["bits_per_byte_xz"] == result["baselines"]["xz"]
        kept = json.loads((model.path / "eval-more.json").read_text())
        assert kept["bits_per_byte"] == result["bits_per_byte"]
        assert "bits per byte" in " ".join(model.describe_evaluation(result))

    def test_nothing_to_read(self, model, tmp_path):
        (tmp_path / "empty.txt").write_text("")
        with pytest.raises(DataError, match="text"):
            model.evaluate(tmp_path / "empty.txt")
