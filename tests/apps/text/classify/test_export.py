"""Classifiers of texts on an encoder, for other programs."""

import pytest

import volano
from volano.apps.text.classify.begin import encoder_of
from volano.errors import UsageError


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch, in its exporter
@pytest.mark.parametrize("to", ["safetensors", "pt2"])
def test_a_program_of_ids(encoder_run, tmp_path, to):
    result = volano.load(encoder_run.path).export(to, tmp_path / f"a.{to}")
    assert result["largest_difference"] < 1e-4
    assert result["classes"] == ["bad", "good"]


def test_a_folder_of_transformers_is_a_network_to_begin_with(encoder_run, tmp_path):
    import transformers

    model = volano.load(encoder_run.path)
    for _ in range(2):  # the second takes the place of the first
        result = model.export("hf", tmp_path / "hf")
    assert result["largest_difference"] < 1e-4
    assert "with Volano" in (tmp_path / "hf" / "README.md").read_text()
    again = encoder_of(f"hf:{tmp_path / 'hf'}")
    assert again is not None
    assert (again.pooling, again.num_features) == ("mean", 16)
    made = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "hf"))
    assert (made.pad_token, made("a good day")["input_ids"]) == ("[PAD]", [2, 13, 4, 10, 3])
    assert again.tokenizer.content == (encoder_run.path / "tokenizer.json").read_bytes()


def test_other_formats_are_refused(encoder_run, tmp_path):
    model = volano.load(encoder_run.path)
    for to in ("onnx", "gguf"):
        with pytest.raises(UsageError, match="must be exported to"):
            model.export(to, tmp_path / "a")
