"""What a reference of a pretrained network names."""

import pytest

from volano.errors import UsageError
from volano.pretrained.network_references import (
    NetworkReference,
    absolute_reference,
    code_of_reference,
)


def test_a_reference_is_known_by_its_prefix_or_by_what_lies_there(tmp_path, monkeypatch):
    (tmp_path / "a_run").mkdir()
    (tmp_path / "a_run" / "run.json").write_text("{}")
    (tmp_path / "a_network").mkdir()
    (tmp_path / "a_network" / "config.json").write_text("{}")
    (tmp_path / "some.safetensors").write_text("")
    monkeypatch.chdir(tmp_path)
    kinds = {
        "hf:google/vit": "transformers", "timm:resnet18": "timm", "my_nets:make": "function",
        "a_run": "run", "a_network": "transformers", "some.safetensors": "weights",
    }  # fmt: skip
    assert {text: NetworkReference.parse(text).kind for text in kinds} == kinds
    assert NetworkReference.parse("hf:google/vit").name == "google/vit"
    assert absolute_reference("hf:a_network") == f"hf:{tmp_path / 'a_network'}"
    assert absolute_reference("hf:google/vit") == "hf:google/vit"


def test_a_study_is_trained_without_an_application(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(UsageError, match="volano train --from"):
        NetworkReference.parse(str(tmp_path))


def test_what_is_not_there_lists_what_is_near(tmp_path):
    (tmp_path / "pictures-run").mkdir()
    with pytest.raises(UsageError, match="Nearest there: .*pictures-run"):
        NetworkReference.parse(str(tmp_path / "picture-run"))


def test_code_is_a_function_alone():
    assert code_of_reference("my_nets:make") == ("my_nets:make",)
    assert code_of_reference("hf:x") == code_of_reference(None) == ()
    assert NetworkReference.parse("my_nets:make").code == ("my_nets:make",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("google/vit-base", "hf:google/vit-base or timm:google/vit-base"),
        ("https://huggingface.co/google/vit-base", "is named hf:google/vit-base"),
        ("empty", "a folder without config.json .* and run.json"),
        ("weights", "Name the weights in it, model.safetensors, with `model`"),
        ("network.onnx", "a file of another kind.*Weights are in files .safetensors"),
    ],
)
def test_what_is_meant_is_said(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").touch()
    (tmp_path / "network.onnx").touch()
    with pytest.raises(UsageError, match=said):
        NetworkReference.parse(text)
    assert code_of_reference(text) == ()


def test_a_home_folder_is_found_behind_the_prefix_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").touch()
    for text in ("hf:~/bert", "~/bert"):
        assert NetworkReference.parse(text).name == str(tmp_path / "bert")
        assert absolute_reference(text).endswith(str(tmp_path / "bert"))
