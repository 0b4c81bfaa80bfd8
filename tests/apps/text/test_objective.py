"""The objective of a language model, and random offsets of its windows."""

import math

import numpy as np
import pytest
import torch

from volano.apps.text.objective import NextToken, RandomOffsets
from volano.data import scoring_windows


def test_the_objectives_metric_is_total_bits_over_total_bytes(model, tokenizer):
    tokens = np.concatenate(list(tokenizer.encode_documents(["def f(x):\n    return x\n" * 20])))
    ids, first = scoring_windows(tokens, 32, 32)
    num_bytes = tokenizer.num_bytes_of[tokens].sum()
    objective = NextToken(
        train_bytes_per_token=1.0, valid_bytes_per_token=num_bytes / (len(tokens) - 1)
    )
    model.eval()
    with torch.no_grad():
        parts = [
            objective(model, (ids[rows], first[rows])) for rows in torch.arange(len(ids)).split(2)
        ]
    weight = sum(part.weight for part in parts)
    mean = sum(part.metrics["bits_per_byte"] * part.weight for part in parts) / weight
    nats = sum(part.total for part in parts)
    assert int(weight) == len(tokens) - 1
    assert float(mean) == pytest.approx(float(nats) / math.log(2) / num_bytes, rel=1e-5)


def test_the_windows_of_ranks_are_those_of_the_whole():
    ids, augment = torch.arange(6 * 64).view(6, 64), RandomOffsets(context=32)
    whole = augment(ids, torch.Generator().manual_seed(4))
    assert whole.shape == (6, 33)
    for rank in range(3):
        part = augment.of_part(ids[rank::3], torch.Generator().manual_seed(4), rank, 3)
        assert torch.equal(part, whole[rank::3])
