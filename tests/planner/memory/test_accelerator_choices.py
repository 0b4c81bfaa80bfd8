"""What an accelerator would do otherwise is done on the host's tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from volano import Plan
from volano.planner.memory.accelerator_choices import AcceleratorChoices
from volano.planner.memory.predict import predict_memory


class TestTypesUnderAutocast:
    def test_sums_of_powers_are_in_fp32_as_on_an_accelerator(self):
        x = torch.ones(4, 8, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            with AcceleratorChoices():
                assert F.softmax(x, 1).dtype == x.exp().dtype == torch.float32
                assert F.layer_norm(x, (8,)).dtype == torch.float32
                assert F.relu(x).dtype == torch.bfloat16
            assert x.exp().dtype == torch.bfloat16

    def test_without_autocast_types_stay(self):
        with AcceleratorChoices():
            assert torch.ones(2, dtype=torch.bfloat16).exp().dtype == torch.bfloat16


class TestDropout:
    def test_nothing_is_kept_of_a_layer_that_drops_nothing(self):
        x = torch.ones(4, requires_grad=True)
        with AcceleratorChoices():
            assert F.dropout(x, 0.0) is x
            assert F.dropout(x, 0.5, False) is x

    def test_what_is_dropped_is_scaled_up(self):
        torch.manual_seed(0)
        with AcceleratorChoices():
            found = F.dropout(torch.ones(1000), 0.75)
        assert set(found.tolist()) == {0.0, 4.0}


@pytest.mark.parametrize("is_masked", [False, True])
def test_attention_of_three_dimensions_is_torchs_own(is_masked):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 5, 4, generator=generator) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.bool).tril() if is_masked else None
    expected = F.scaled_dot_product_attention(query, key, value, mask)
    with AcceleratorChoices():
        found = F.scaled_dot_product_attention(query, key, value, mask)
    assert torch.equal(found, expected)


def test_an_accelerator_keeps_masks_of_dropout_as_bytes_and_no_square_of_attention(make_task):
    def objective(model, batch):
        q = model[1](batch[0].view(-1, 64, 1).expand(-1, 64, 16))
        return F.dropout(
            F.scaled_dot_product_attention(q[:, None], q[:, None], q[:, None]), 0.5
        ).sum()

    task = make_task(
        model=lambda: nn.Sequential(nn.Identity(), nn.Linear(16, 16)), objective=objective
    )
    for precision, kernel in (("bf16", "flash"), ("fp32", "efficient")):
        found = predict_memory(task, Plan.baseline().pin(precision=precision), target="accelerator")
        names = {operation.name for operation in found.operations}
        assert f"aten._scaled_dot_product_{kernel}_attention.default" in names
        assert "aten.native_dropout.default" in names
        # One square of scores alone would be this.
        assert found.memory.categories["activations"] < 32 * 64 * 64 * 4


def test_attention_within_a_layer_keeps_no_square_on_an_accelerator(make_task):
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attend = (
                nn.Linear(1, 16),
                nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True),
            )
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            x = self.embed(x.repeat(1, 4)[..., None])
            return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))

    found = predict_memory(make_task(model=Attending), Plan.baseline(), target="accelerator")
    names = {operation.name for operation in found.operations}
    assert "aten._scaled_dot_product_efficient_attention.default" in names
    assert found.memory.categories["activations"] < 32 * 2 * 256 * 256 * 4  # one square of scores
