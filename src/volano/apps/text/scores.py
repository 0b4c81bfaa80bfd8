"""Measures the bits per byte of a language model over a text, every byte counted once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from volano.apps.text.network import Decoder
from volano.apps.text.objective import counted
from volano.apps.text.tokenizer import Tokenizer
from volano.data import scoring_windows
from volano.device import Device
from volano.errors import DataError

# A quarter. Measured on 5 MB of plays: no overlap 2.120, half 2.113 bits per byte, at twice the
# time.
_OVERLAP = 4
# Tokens of a forward pass; the logits of so many take 64 MB with the smallest vocabulary.
_TOKENS_AT_ONCE = 8192
_MOST_NATS = 709.0  # of the exponential in fp64


def score_tokens(
    model: Decoder, tokens: np.ndarray, tokenizer: Tokenizer, device: Device, *, precision: str
) -> dict[str, Any]:
    """Returns ``bits_per_byte`` (total bits over total bytes), ``perplexity`` (per token),
    ``bytes_per_token``, ``num_bytes`` and ``num_tokens`` of a text.

    Windows overlap by a quarter: each token but those of the first window is predicted from at
    least a quarter of a context and at most a whole one. Separators are seen, not predicted.

    Args:
        model: the model, on ``device``; its mode is put back.
        tokens: ids uint16 [N] as ``Tokenizer.encode_documents`` gives them, a separator first.
        tokenizer: the tokenizer of the ids.
        device: the device to compute on.
        precision: the precision of the arithmetic; losses are added in fp64.

    Raises:
        DataError: there is no token to predict.
    """
    context = model.shape.context
    ids, first = scoring_windows(tokens, context, context - context // _OVERLAP)
    was_training = model.training
    model.eval()
    nats, num_tokens = 0.0, 0
    size = max(1, _TOKENS_AT_ONCE // context)
    try:
        with torch.inference_mode(), device.autocast(precision):
            for batch, start in zip(ids.split(size), first.split(size), strict=True):
                counts = device.move(counted(batch, start))
                moved = device.move(batch.long())
                logits = model(moved[:, :-1])
                losses = F.cross_entropy(
                    logits.flatten(0, 1), moved[:, 1:].flatten(), reduction="none"
                )
                nats += float(losses[counts.flatten()].cpu().double().sum())
                num_tokens += int(counts.sum())
    finally:
        model.train(was_training)
    num_bytes = int(tokenizer.num_bytes_of[tokens].sum())
    if not num_tokens:
        raise DataError("There must be text to evaluate on", got="no token")
    return {
        "bits_per_byte": nats / math.log(2) / num_bytes,
        "perplexity": perplexity(nats / num_tokens),
        "bytes_per_token": num_bytes / num_tokens,
        "num_bytes": num_bytes,
        "num_tokens": num_tokens,
    }


def perplexity(nats: float) -> float:
    """Returns the perplexity of a mean loss; infinity of one that no number can hold."""
    return math.exp(nats) if nats < _MOST_NATS else math.inf


def scores_in_words(metrics: Mapping[str, Any], what: str) -> list[str]:
    """Puts bits per byte into words, with those of compressors; ``what`` names the bytes."""
    lines = [
        f"bits per byte {metrics['bits_per_byte']:.4f} on {metrics['num_test_bytes']:,} {what}"
    ]
    xz, bz2 = metrics.get("bits_per_byte_xz"), metrics.get("bits_per_byte_bz2")
    if xz is not None:
        lines.append(f"after the training text, xz needs {xz:.4f} and bz2 {bz2:.4f}")
    return [
        *lines,
        f"perplexity {metrics['perplexity']:.1f} per token of {metrics['bytes_per_token']:.2f} "
        "bytes",
    ]
