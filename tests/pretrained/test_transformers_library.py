"""Networks of transformers, from folders on this machine."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pretrained_networks import save_small_encoder
from volano.errors import CheckpointError, UsageError
from volano.pretrained.transformers_library import (
    build_network,
    config_of,
    load_network,
    read_bytes_of,
    read_json_of,
)
from volano.training import save_tensors

pytest.importorskip("transformers", reason="transformers is not installed")


def test_a_network_is_loaded_and_built_again(tmp_path):
    folder = str(save_small_encoder(tmp_path))
    network = load_network(folder, "AutoModel")
    other = build_network(json.loads(json.dumps(config_of(folder))), "AutoModel")
    other.load_state_dict(network.state_dict())
    assert not network.training
    ids = torch.tensor([[2, 4, 3]])
    found = network(input_ids=ids).last_hidden_state
    assert torch.equal(found, other(input_ids=ids).last_hidden_state)
    assert read_json_of(folder, "tokenizer_config.json") == {"pad_token": "[PAD]"}
    assert read_bytes_of(folder, "nothing") is None


def test_without_network_the_command_that_fetches_is_said(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="Fetch it with: hf download nobody/has-this"):
        load_network("nobody/has-this", "AutoModel")


def test_weights_that_do_not_fit_are_named_with_their_shapes(tmp_path):
    folder = save_small_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.intermediate.dense.weight"))
    save_tensors({**weights, name: torch.zeros(7, 16)}, folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"layer.0.intermediate.dense.weight is \[7, 16\], not"):
        load_network(str(folder), "AutoModel")


def test_code_in_a_folder_is_not_run_and_nobody_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "own.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import PretrainedConfig as Config\n"
    )
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.X"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="must be a folder with config.json"):
        config_of(str(tmp_path))
    # transformers knows this kind, but no classifier of images of it: it would ask for the code.
    known = {"model_type": "bert", "auto_map": {"AutoModelForImageClassification": "own.X"},
             "_name_or_path": str(tmp_path)}  # fmt: skip
    with pytest.raises(ValueError, match="custom code"):
        build_network(known, "AutoModelForImageClassification")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("auto", "changes"),
    [
        ("pipeline", {}),
        ("AutoModel", {"num_hidden_layers": 10**9}),
        ("AutoModel", {"sub": {"depths": [1, 10**6]}}),
        ("AutoModel", {"hidden_size": 10**12}),
    ],
)
def test_what_a_run_states_of_a_network_is_bounded(auto, changes):
    with pytest.raises(CheckpointError, match="configuration of a run's network"):
        build_network({"model_type": "bert", "rope_theta": 10**9, **changes}, auto)
