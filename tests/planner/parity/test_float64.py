"""Arithmetic in float64 with the draws of fp32."""

import pytest
import torch
from torch import nn

from volano.planner.parity.float64 import Float64, SameDraws

DRAWS = {
    "rand": lambda dtype: torch.rand(64, 33, dtype=dtype),
    "randn": lambda dtype: torch.randn(1000, dtype=dtype),
    "randn_like": lambda dtype: torch.randn_like(torch.zeros(7, 9, dtype=dtype)),
    "uniform_": lambda dtype: torch.empty(40, dtype=dtype).uniform_(2, 3),
    "normal_": lambda dtype: torch.empty(40, dtype=dtype).normal_(),
    "normal": lambda dtype: torch.normal(torch.zeros(40, dtype=dtype), 1.0),
    "bernoulli": lambda dtype: torch.bernoulli(torch.full((40,), 0.3, dtype=dtype)),
    "dropout": lambda dtype: nn.functional.dropout(torch.ones(40, 8, dtype=dtype), 0.5),
    "native_dropout": lambda dtype: torch.native_dropout(torch.ones(40, 8, dtype=dtype), 0.5, True)[
        0
    ],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("draw", DRAWS)
def test_every_type_draws_as_fp32_does(draw, dtype):
    torch.manual_seed(1)
    with SameDraws() as mode:
        expected = DRAWS[draw](torch.float32)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    with SameDraws():
        got = DRAWS[draw](dtype)
    assert got.dtype == dtype
    assert torch.equal(got, expected.to(dtype))
    assert torch.equal(torch.get_rng_state(), after)
    assert mode.num_draws == 1


# The CPU's kernel of native_dropout draws booleans; eager dropout does not call it.
@pytest.mark.parametrize("draw", [name for name in DRAWS if name != "native_dropout"])
def test_fp32_draws_as_it_does_without(draw):
    torch.manual_seed(1)
    plain = DRAWS[draw](torch.float32)
    torch.manual_seed(1)
    with SameDraws():
        assert torch.equal(DRAWS[draw](torch.float32), plain)


def test_what_draws_nothing_is_not_counted():
    queries = torch.randn(2, 4, 8, 16)
    with SameDraws() as mode:
        nn.functional.scaled_dot_product_attention(queries, queries, queries)
        nn.functional.dropout(queries, 0.0)
        nn.functional.dropout(queries, 0.5, training=False)
        assert mode.num_draws == 0
        nn.functional.scaled_dot_product_attention(queries, queries, queries, dropout_p=0.5)
        assert mode.num_draws == 1


def test_casts_constants_and_factories_are_widened():
    weights, x = torch.rand(5) / 3, torch.rand(4, 5, dtype=torch.float64, requires_grad=True)

    def compute(x, weights):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = (x.float() * weights).to(torch.bfloat16) @ torch.ones(5, 3) / 7
        y = torch.softmax(y.half(), 1, dtype=torch.float32) + torch.linspace(0, 1, 3)
        return nn.functional.mse_loss(y.float(), torch.zeros(4, 3)).float()

    with Float64():
        loss = compute(x, weights)
        (gradient,) = torch.autograd.grad(loss, x)
    truth = (
        torch.softmax((x * weights.double()) @ torch.ones(5, 3).double() / 7, 1)
        + torch.linspace(0, 1, 3).double()
    )
    truth = truth.square().mean()
    (expected,) = torch.autograd.grad(truth, x)
    assert loss.dtype == gradient.dtype == torch.float64
    torch.testing.assert_close(loss, truth, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-16)


def test_a_fused_kernel_of_attention_keeps_the_type_that_it_is_for():
    """Tried on tensors without memory: no processor has that kernel."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention
    queries = torch.empty(2, 4, 8, 16, dtype=torch.bfloat16, device="meta")
    with SameDraws() as mode:
        out = attention(queries, queries, queries, 0.5)[0]
    assert out.dtype == torch.bfloat16
    assert mode.num_draws == 1
    assert mode.drops_in_kernels
    with SameDraws() as mode:
        attention(queries, queries, queries, 0.0)
    assert not mode.drops_in_kernels


def test_attention_is_made_of_plain_operations_on_request():
    assert torch.backends.cuda.flash_sdp_enabled()
    with SameDraws(plain_attention=True):
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    with SameDraws():
        assert torch.backends.cuda.flash_sdp_enabled()
