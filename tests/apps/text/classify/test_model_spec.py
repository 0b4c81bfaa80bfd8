"""The description of a classifier of texts, and what it predicts."""

import numpy as np
import pytest
import torch

from volano.apps.text.classify import model_spec
from volano.apps.text.classify.model_spec import (
    BAG,
    DECODER_HEAD,
    ClassesSpec,
    choose_context,
    predict_texts,
)
from volano.apps.text.tokenizer import train_tokenizer
from volano.device import Device
from volano.errors import CheckpointError

BAG_SPEC = ClassesSpec(classes=("a", "b"), kept=BAG, candidates={BAG: 0.5}, num_buckets=2**10)


def test_the_description_comes_back():
    spec = ClassesSpec(
        classes=("a", "b"), kept=DECODER_HEAD, candidates={BAG: 0.5, DECODER_HEAD: 0.6},
        num_buckets=8, vocab_size=300, context=32, depth=2, tokenizer_digest="0",
    )  # fmt: skip
    assert ClassesSpec.from_json(spec.to_json()) == spec
    found = ClassesSpec.from_json({**spec.to_json(), "candidates": {BAG: None}})
    assert f"{found.candidates[BAG]:.4f}" == "nan"
    with pytest.raises(CheckpointError, match="must describe a classifier"):
        ClassesSpec.from_json({**spec.to_json(), "goal": "language"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 9}, "must be of schema version 1; got 9"),
        ({"colour": 1}, "must describe a classifier"),
        ({"classes": None}, "must describe a classifier"),
        ({"candidates": {BAG: {}}}, "must describe a classifier"),
        ({"candidates": 3}, "must describe a classifier"),
    ],
)
def test_another_is_refused(change, words):
    with pytest.raises(CheckpointError, match=words):
        ClassesSpec.from_json({**BAG_SPEC.to_json(), **change})


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["some words of a text " * 20], 300)


def head_spec(tokenizer):
    return ClassesSpec(
        classes=("a", "b", "c"), kept=DECODER_HEAD, candidates={}, num_buckets=8, context=16,
        depth=2, vocab_size=tokenizer.vocab_size, tokenizer_digest=tokenizer.digest(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["bag", "head"])
def test_many_texts_are_predicted_as_few_are(kind, tokenizer, monkeypatch):
    spec = BAG_SPEC if kind == "bag" else head_spec(tokenizer)
    torch.manual_seed(0)
    model = spec.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    texts = ["some words", "", "a text of words", "words", "some"]
    whole = predict_texts(model, spec, texts, Device("cpu"), tokenizer)
    assert (whole.shape, whole.dtype) == ((5, len(spec.classes)), torch.float32)
    assert not model.training
    monkeypatch.setattr(model_spec, "_TEXTS_AT_ONCE", 2)
    parts = predict_texts(model, spec, texts, Device("cpu"), tokenizer)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)


def test_a_context_holds_most_texts(tokenizer):
    def length(text):
        return len(tokenizer.encode(text)) + 1

    short, long = "some words", "some words of a text " * 200
    assert choose_context([short] * 20, tokenizer) == 16 * -(-length(short) // 16)
    assert choose_context([long] * 20, tokenizer) == 128
    # One of forty may be longer.
    assert choose_context([short] * 39 + [long], tokenizer) == choose_context([short], tokenizer)
    assert np.log2(choose_context([short], tokenizer)) >= 4
