import bz2
import lzma
import math
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from volano.apps.text.compressors import CompressorFigures
from volano.apps.text.network import Decoder, DecoderShape
from volano.apps.text.objective import NextToken
from volano.apps.text.scores import score_tokens
from volano.apps.text.tokenizer import train_tokenizer
from volano.data import scoring_windows
from volano.device import Device

STDLIB = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([(STDLIB / "argparse.py").read_text(encoding="utf-8")], 512)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Decoder(DecoderShape(vocab_size=512, context=32, depth=2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


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
    assert score_tokens(model, tokens, tokenizer, Device("cpu"), precision="fp32")["num_tokens"] == 1


def test_the_objectives_metric_is_total_bits_over_total_bytes(model, tokenizer):
    tokens = np.concatenate(list(tokenizer.encode_documents(["def f(x):\n    return x\n" * 20])))
    ids, first = scoring_windows(tokens, 32, 32)
    num_bytes = tokenizer.num_bytes_of[tokens].sum()
    objective = NextToken(train_bytes_per_token=1.0, valid_bytes_per_token=num_bytes / (len(tokens) - 1))
    model.eval()
    with torch.no_grad():
        parts = [objective(model, (ids[rows], first[rows])) for rows in torch.arange(len(ids)).split(2)]
    weight = sum(part.weight for part in parts)
    mean = sum(part.metrics["bits_per_byte"] * part.weight for part in parts) / weight
    nats = sum(part.total for part in parts)
    assert int(weight) == len(tokens) - 1
    assert float(mean) == pytest.approx(float(nats) / math.log(2) / num_bytes, rel=1e-5)


def test_compressors_against_direct_calls():
    training = (STDLIB / "argparse.py").read_bytes()
    held = (STDLIB / "optparse.py").read_bytes()
    with CompressorFigures(training, held) as figures:
        result = figures.result()
    extreme = 9 | lzma.PRESET_EXTREME
    xz = len(lzma.compress(training + held, preset=extreme)) - len(lzma.compress(training, preset=extreme))
    both = len(bz2.compress(training + held)) - len(bz2.compress(training))
    assert result == {"xz": round(8 * xz / len(held), 4), "bz2": round(8 * both / len(held), 4)}
    with CompressorFigures(b"", held) as alone:  # what it has seen before helps
        assert alone.result()["xz"] > result["xz"]
