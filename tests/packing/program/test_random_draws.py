"""The draws of each member are those that it makes alone."""

import pytest
import torch
import torch.nn.functional as F

from volano.packing.program.random_draws import Draw, Draws, noise_of

SEEDS = [3, 8, 2**40]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dropout_drops_what_it_drops_alone(dtype):
    numbers = [{"p": p} for p in (0.1, 0.5, 0.0)]
    draws = [Draw(shape=(40, 7), dtype=dtype, drop=0.3), Draw(shape=(5,), dtype=dtype, drop="p")]
    filled = Draws(draws, numbers, torch.Generator(), torch.device("cpu"))
    filled.fill(SEEDS)
    for slot, (seed, row) in enumerate(zip(SEEDS, numbers, strict=True)):
        torch.manual_seed(seed)
        alone = [
            F.dropout(torch.ones(40, 7, dtype=dtype), 0.3),
            F.dropout(torch.ones(5, dtype=dtype), row["p"]),
        ]
        for tensors, expected in zip(filled.tensors, alone, strict=True):
            assert torch.equal(noise_of(tuple(tensor[slot] for tensor in tensors)), expected)


def test_other_draws_come_in_their_order():
    draws = [
        Draw(
            shape=(3,),
            dtype=torch.float32,
            make=lambda generator: torch.randn(3, generator=generator),
        ),
        Draw(
            shape=(4,),
            dtype=torch.int64,
            make=lambda generator: torch.randperm(4, generator=generator),
        ),
    ]
    filled = Draws(draws, [{}, {}], torch.Generator(), torch.device("cpu"))
    filled.fill(SEEDS[:2])
    for slot, seed in enumerate(SEEDS[:2]):
        torch.manual_seed(seed)
        for tensors, expected in zip(
            filled.tensors, (torch.randn(3), torch.randperm(4)), strict=True
        ):
            assert torch.equal(noise_of(tensors)[slot], expected)
