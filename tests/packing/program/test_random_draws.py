"""The draws of each member are those that it makes alone."""

import pytest
import torch
import torch.nn.functional as F

from volano.device import Device, random_state_kept
from volano.packing.program.random_draws import Draw, Draws, is_dropout_fused, noise_of

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


def test_draws_of_a_kernel_of_its_own_are_those_made_alone():
    """As where one kernel draws and drops, from the default generator; other draws come from that
    one too."""
    draws = [
        Draw(shape=(40, 7), dtype=torch.float32, drop=0.3),
        Draw(shape=(3,), dtype=torch.float32, make=lambda g: torch.randn(3, generator=g)),
        Draw(shape=(5,), dtype=torch.float32, drop="p"),
    ]
    numbers = [{"p": 0.5}, {"p": 0.0}, {"p": 1.0}]
    with random_state_kept(Device("cpu")):
        filled = Draws(draws, numbers, torch.default_generator, torch.device("cpu"), by_kernel=True)
        filled.fill(SEEDS)
        for slot, (seed, row) in enumerate(zip(SEEDS, numbers, strict=True)):
            torch.manual_seed(seed)
            alone = [torch.native_dropout(torch.ones(40, 7), 0.3, True)[0], torch.randn(3)]
            alone.append(
                torch.native_dropout(torch.ones(5), 0.5, True)[0]
                if row["p"] == 0.5
                else torch.full((5,), 1.0 - row["p"])
            )
            for tensors, expected in zip(filled.tensors, alone, strict=True):
                assert torch.equal(noise_of(tuple(tensor[slot] for tensor in tensors)), expected)


def test_whether_dropout_has_a_kernel_of_its_own_is_found_by_drawing(monkeypatch):
    assert not is_dropout_fused("cpu")

    class Elsewhere(Device):
        def __init__(self, _name):
            super().__init__("cpu")
            self.is_cpu = False

        def default_generator(self):
            return torch.default_generator

        def seed(self, number):
            torch.manual_seed(number)

        def rng_state(self):
            return {}

        def set_rng_state(self, states):
            pass

    monkeypatch.setattr("volano.packing.program.random_draws.Device", Elsewhere)
    with random_state_kept(Device("cpu")):
        assert not is_dropout_fused("elsewhere:0")
        monkeypatch.setattr(F, "dropout", lambda x, _p: x.index_fill(0, torch.tensor(0), 0.0))
        assert is_dropout_fused("elsewhere:1")
