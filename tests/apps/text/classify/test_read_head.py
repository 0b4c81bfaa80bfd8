"""The Task in which a decoder reads labelled texts; what a run keeps of the decoder."""

import numpy as np
import pytest
import torch

from volano.apps.text.classify.model_spec import DECODER_HEAD, ClassesSpec
from volano.apps.text.classify.read_head import PRETRAINED, ReadHead, reading_task
from volano.apps.text.network import Decoder, DecoderShape
from volano.apps.text.tokenizer import train_tokenizer
from volano.errors import CheckpointError
from volano.training import RunFolder


def test_a_step_has_as_many_windows_as_the_tokens_allow():
    shape = DecoderShape(vocab_size=300, context=64, depth=1)
    tokens = np.arange(64 * 10, dtype=np.uint16) % 300
    few = reading_task(tokens, shape, num_bytes=2000, num_steps=7, seed=3)
    many = reading_task(np.tile(tokens, 20), shape, num_bytes=2000, num_steps=7, seed=3)
    assert (few.batch_size, many.batch_size) == (9, 2048 // 64)
    assert (few.num_steps, few.seed) == (7, 3)


def test_a_decoder_comes_back_from_a_run(tmp_path):
    tokenizer = train_tokenizer(["one text", "another text"], 260)
    shape = DecoderShape(vocab_size=tokenizer.vocab_size, context=8, depth=1)
    weights = Decoder(shape).state_dict()
    folder = RunFolder(tmp_path)
    ReadHead(tokenizer=tokenizer, shape=shape, weights=weights).save(folder)
    spec = ClassesSpec(
        classes=("a", "b"), kept=DECODER_HEAD, candidates={}, num_buckets=2,
        vocab_size=shape.vocab_size, context=8, depth=1, tokenizer_digest=tokenizer.digest(),
    )  # fmt: skip
    again = ReadHead.load(folder, spec)
    assert again is not None
    assert again.shape == shape
    assert all(torch.equal(again.weights[name], weights[name]) for name in weights)
    (tmp_path / PRETRAINED).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="must be readable"):
        ReadHead.load(folder, spec)
