import math

import numpy as np
import pytest
import torch

from volano.apps.text.scores import score_tokens
from volano.device import Device


def direct_nats(model, tokens, context):
    """Each token by itself, from what the windows of score_tokens let it see."""
    stride = context - context // 4
    nats = 0.0
    model.eval()
    for place in range(1, len(tokens)):
        if tokens[place] == 0:
            continue
        window = 0 if place <= context else -(-(place - context) // stride)
        seen = torch.from_numpy(tokens[window * stride : place].astype(np.int64))[None]
        with torch.no_grad():
            nats -= model(seen)[0, -1].log_softmax(0)[int(tokens[place])].item()
    return nats


def test_bits_per_byte_against_one_token_at_a_time(model, tokenizer):
    texts = ["parser = ArgumentParser()\n" * 3, "größer " * 9, "x"]
    tokens = np.concatenate(list(tokenizer.encode_documents(texts)))
    scores = score_tokens(model, tokens, tokenizer, Device("cpu"), precision="fp32")
    num_bytes = len("".join(texts).encode())
    nats = direct_nats(model, tokens, 32)
    assert len(tokens) > 2 * 32
    assert scores["num_bytes"] == num_bytes
    assert scores["num_tokens"] == len(tokens) - 3
    assert scores["bits_per_byte"] == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(nats / (len(tokens) - 3)), rel=1e-5)


def test_a_text_of_one_token(model, tokenizer):
    tokens = np.array([0, *tokenizer.encode("x")], dtype=np.uint16)
    assert (
        score_tokens(model, tokens, tokenizer, Device("cpu"), precision="fp32")["num_tokens"] == 1
    )
