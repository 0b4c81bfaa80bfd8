"""Torch's functions as a pack calls them."""

import pytest
import torch
import torch.nn.functional as F

from packing.engines.test_stacked import made, refused
from volano.packing.program.function_mode import PackedFunctions
from volano.packing.refusal import NotPackable


@pytest.mark.parametrize("is_forked", [False, True])
def test_a_seed_that_an_objective_sets(is_forked):
    def objective(model, batch):
        with torch.random.fork_rng(devices=[], enabled=is_forked):
            torch.manual_seed(5)
            noise = torch.randn(batch[0].shape, dtype=batch[0].dtype)
        return F.cross_entropy(model(batch[0] + noise), batch[1])

    torch.manual_seed(5)  # what another test may have left
    refused(
        made(lambda _: None, objective=objective), "random numbers after a seed of the task's own"
    )


def test_draws_are_noted_in_their_order_and_nothing_is_drawn():
    functions, before = PackedFunctions(), torch.get_rng_state()
    with functions:
        kept = F.dropout(torch.ones(2, 3), 0.25, training=True)
        F.dropout(torch.ones(2, 3), 0.25, training=False)
        torch.randint(0, 5, (4,))
        F.dropout2d(torch.ones(2, 3, 4, 4), 0.5)
    assert [(draw.shape, draw.drop) for draw in functions.draws] == [
        ((2, 3), 0.25),
        ((4,), None),
        ((2, 3, 1, 1), 0.5),
    ]
    assert torch.equal(kept, torch.ones(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_number_that_varies_is_known_and_one_computed_from_it_is_refused():
    drop = torch.tensor(0.5)
    with PackedFunctions(varying={"objective.p": drop}) as functions:
        F.dropout(torch.ones(3), drop)
        with pytest.raises(NotPackable, match="computed from what varies"):
            F.dropout(torch.ones(3), drop / 2)
    assert functions.draws[0].drop == "objective.p"


def test_what_a_generator_of_ones_own_draws_is_refused():
    with PackedFunctions(), pytest.raises(NotPackable, match="a generator of its own"):
        torch.rand(3, generator=torch.Generator())
