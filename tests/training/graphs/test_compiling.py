"""Compiled code is not used under settings under which it was not compiled."""

import pytest
import torch
from torch import nn

from volano.training.graphs.compiling import CompiledObjective

pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def noisy(model, batch):
    """Draws by itself: which numbers is the setting's."""
    return (model(batch) + torch.randn_like(batch)).square().mean()


def test_settings_that_are_not_guarded_have_code_of_their_own():
    from torch._dynamo.utils import counters
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    torch.manual_seed(0)
    model, batch = nn.Linear(16, 16), torch.randn(4, 16)

    def loss_of(objective):
        torch.manual_seed(1)
        return objective(model, batch).item()

    def num_compiled(objective):
        before = counters["stats"]["unique_graphs"]
        loss_of(objective)
        return counters["stats"]["unique_graphs"] - before

    expected = loss_of(noisy)
    other = loss_of(CompiledObjective(noisy))
    assert other != pytest.approx(expected, rel=1e-3)  # the compiler's own numbers
    with inductor.patch(fallback_random=True):
        assert loss_of(CompiledObjective(noisy)) == pytest.approx(expected, rel=1e-5)
    compiled = CompiledObjective(noisy)
    with inductor.patch(fallback_random=True):
        assert loss_of(compiled) == pytest.approx(expected, rel=1e-5)
    assert loss_of(compiled) == other
    with functorch.patch(activation_memory_budget=0.5):
        assert num_compiled(compiled) == 1
        assert num_compiled(CompiledObjective(noisy)) == 0  # the same settings share
    assert num_compiled(CompiledObjective(noisy)) == 0
