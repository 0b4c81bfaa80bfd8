"""Networks of transformers, from folders on this machine."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pretrained_networks import save_small_encoder, save_small_vit
from volano.errors import CheckpointError, UsageError
from volano.pretrained import transformers_library
from volano.pretrained.transformers_library import (
    CAUSAL_AUTO,
    ENCODER_AUTO,
    IDS,
    PIXELS,
    build_network,
    classes_of,
    config_of,
    load_network,
    offline,
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
    cached = ["google/vit-base", "bert-base-uncased"]
    monkeypatch.setattr(transformers_library, "_cached_names", lambda: cached)
    with pytest.raises(UsageError, match="Nearest in the cache: google/vit-base; Fetch it"):
        config_of("google/vit-bose")


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
    with pytest.raises(CheckpointError, match="custom code"):
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


def test_half_precision_is_loaded_and_built_as_fp32(tmp_path):
    from transformers import AutoModel

    folder = str(save_small_encoder(tmp_path))
    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    assert load_file(tmp_path / "model.safetensors")["embeddings.word_embeddings.weight"].dtype == (
        torch.bfloat16
    )
    for network in (
        load_network(folder, ENCODER_AUTO),
        build_network(config_of(folder), ENCODER_AUTO),
    ):
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_what_weights_may_lack_is_drawn_alike_each_time(tmp_path):
    folder = str(save_small_encoder(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_tensors(kept, tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    one, other = (load_network(folder, ENCODER_AUTO).pooler.dense.weight for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert load_network(folder, ENCODER_AUTO, is_pooled=False).pooler is None


def test_the_head_of_a_language_model_may_not_be_lacking(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert load_network(str(tmp_path), CAUSAL_AUTO).lm_head.weight.shape == (16, 8)
    del weights["lm_head.weight"]
    save_tensors(weights, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"lm_head\.weight is missing"):
        load_network(str(tmp_path), CAUSAL_AUTO)


def test_damaged_files_are_told_in_words(tmp_path):
    folder = save_small_encoder(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[: len(whole) // 2], b"no weights"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(UsageError, match="SafetensorError: "):
            load_network(str(folder), ENCODER_AUTO)
    (folder / "tokenizer_config.json").write_text("[1")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json must be JSON"):
        read_json_of(str(folder), "tokenizer_config.json")
    (folder / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(UsageError, match="must hold a dict"):
        read_json_of(str(folder), "tokenizer_config.json")
    (folder / "config.json").write_text('{"model_type": "quokka"}')
    with pytest.raises(UsageError, match="quokka"):
        load_network(str(folder), ENCODER_AUTO)


def test_a_path_that_is_not_there_is_no_name_to_fetch(tmp_path):
    (tmp_path / "my-bert").mkdir()
    with pytest.raises(UsageError, match="Nearest there: .*my-bert") as caught:
        config_of(str(tmp_path / "my-bart"))
    assert "hf download" not in str(caught.value)
    (tmp_path / "my-bert" / "model.safetensors").touch()
    with pytest.raises(UsageError, match="Name the folder in which it lies: hf:"):
        config_of(str(tmp_path / "my-bert" / "model.safetensors"))


def test_a_network_takes_what_it_is_wanted_for(tmp_path):
    with pytest.raises(UsageError, match="network of texts must take input_ids; got .*ViTModel"):
        load_network(str(save_small_vit(tmp_path / "vit")), ENCODER_AUTO, takes=IDS)
    with pytest.raises(UsageError, match="network of pictures must take pixel_values; got .*Bert"):
        load_network(str(save_small_encoder(tmp_path / "bert")), ENCODER_AUTO, takes=PIXELS)


def test_classes_are_those_of_a_classifiers_own_head(tmp_path):
    names = {"1": "dog", "0": "cat"}
    assert classes_of({"architectures": ["BertForSequenceClassification"], "id2label": names}) == (
        "cat", "dog",
    )  # fmt: skip
    assert classes_of({"architectures": ["BertModel"], "id2label": names}) == ()


def test_other_libraries_fetch_nothing_meanwhile():
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    before = constants.HF_HUB_OFFLINE
    with offline(), pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("nobody/has-this", "config.json")
    assert before == constants.HF_HUB_OFFLINE
