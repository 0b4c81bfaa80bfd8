"""Pretrained causal language models and their adapters."""

import copy

import pytest
import torch

from pretrained_networks import save_small_encoder, save_small_gpt2
from volano.errors import UsageError
from volano.pretrained.causal_networks import build_causal, load_causal_network

pytest.importorskip("peft", reason="peft is not installed")
IDS = torch.arange(1, 9)[None]


def test_adapters_begin_as_nothing_and_merge_into_the_weights(tmp_path):
    network = load_causal_network(str(save_small_gpt2(tmp_path)), "hf:x")
    assert (network.end_id, network.tokenizer.most_tokens) == (0, 32)
    model = network.tuned("lora").eval()
    plain = network.tuned("all").eval()
    assert torch.equal(model(IDS), plain(IDS))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = model(IDS)
    assert not torch.allclose(before, plain(IDS), atol=1e-3)
    again = build_causal(network.config, "lora")
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    merged = again.merged().eval()
    assert torch.allclose(merged(input_ids=IDS).logits, before, atol=1e-4)
    assert torch.equal(merged(input_ids=IDS).logits.argmax(-1), before.argmax(-1))


def test_a_network_that_looks_at_both_sides_is_refused(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    folder = save_small_encoder(tmp_path)
    config = BertConfig(
        vocab_size=15, hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=16, max_position_embeddings=16,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    with pytest.raises(UsageError, match="must not see the tokens .*looks at both sides"):
        load_causal_network(str(folder), "hf:x")
