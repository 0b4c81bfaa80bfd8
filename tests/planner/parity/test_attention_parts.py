"""Attention for some queries at a time is attention, and keeps no scores."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from volano.planner.parity import attention_parts
from volano.planner.parity.attention_parts import attention_by_parts
from volano.planner.parity.float64 import Float64

T, S = 11, 13
MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "of each row": {"attn_mask": torch.arange(T)[:, None] >= torch.arange(S) - 2},
    "of all rows": {"attn_mask": torch.linspace(0.0, 1.0, S, dtype=torch.float64)[None]},
    "scaled": {"scale": 0.3},
}


def drawn():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 3, length, 4, dtype=torch.float64, generator=generator).requires_grad_()
        for length in (T, S, S)
    ]


def computed(leaves, **more):
    """The result and the gradients, and the number of elements of the largest saved tensor."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = F.scaled_dot_product_attention(*leaves, **more)
    return [out, *torch.autograd.grad(out.square().sum(), leaves)], max(sizes, default=0)


@pytest.mark.parametrize("mask", MASKS)
def test_parts_of_the_queries_give_the_whole(mask):
    leaves = drawn()
    whole, _ = computed(leaves, **MASKS[mask])
    with attention_by_parts(part_bytes=4 * 2 * 3 * S * 8), Float64():  # four rows of scores
        found, largest = computed(leaves, **MASKS[mask])
    for ours, theirs in zip(found, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert largest < 2 * 3 * T * S


def test_a_module_of_torchs_attends_by_parts_too(monkeypatch):
    layer, parts = nn.MultiheadAttention(8, 2, batch_first=True).double(), []
    x = torch.randn(3, T, 8, dtype=torch.float64)
    whole, _ = layer(x, x, x, need_weights=False)
    checkpoint, own = attention_parts.checkpoint, F.scaled_dot_product_attention

    def counted(function, rows, *given, **more):
        parts.append(rows.shape[-2])
        return checkpoint(function, rows, *given, **more)

    monkeypatch.setattr(attention_parts, "checkpoint", counted)
    with attention_by_parts(part_bytes=1):
        found, _ = layer(x, x, x, need_weights=False)
    assert F.scaled_dot_product_attention is own
    assert parts == [1] * T
    torch.testing.assert_close(found, whole)


def test_what_drops_or_is_narrow_is_left_as_it_is():
    x = torch.randn(2, T, 4)
    with attention_by_parts(part_bytes=1):
        torch.manual_seed(0)
        narrow = F.scaled_dot_product_attention(x, x, x)
        dropped = F.scaled_dot_product_attention(x.double(), x.double(), x.double(), dropout_p=0.5)
    assert torch.equal(narrow, F.scaled_dot_product_attention(x, x, x))
    torch.manual_seed(0)
    again = F.scaled_dot_product_attention(x.double(), x.double(), x.double(), dropout_p=0.5)
    assert torch.equal(dropped, again)
