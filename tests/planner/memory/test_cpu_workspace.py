"""What kernels hold beside live tensors, by the rules that were found with torch's profiler."""

import pytest
import torch
from torch import nn

from volano import Plan
from volano.planner.memory import cpu_workspace
from volano.planner.memory.cpu_workspace import (
    reserve_on_accelerator,
    reserve_on_cpu,
    workspace_on_cpu,
)
from volano.planner.memory.predict import predict_memory

aten = torch.ops.aten
MIB = 2**20


def test_a_kernel_without_a_rule_takes_nothing_beside_its_tensors():
    x = torch.ones(4)
    assert workspace_on_cpu(aten.add.Tensor, (x, x), x) == 0


def test_products_of_narrow_types_are_packed():
    wide, narrow = torch.ones(64, 64), torch.ones(64, 64, dtype=torch.bfloat16)
    assert workspace_on_cpu(aten.mm.default, (wide, wide), wide) == 0
    packed = workspace_on_cpu(aten.mm.default, (narrow, narrow), narrow)
    assert packed == narrow.nbytes + 2**13
    turned = workspace_on_cpu(aten.mm.default, (narrow.t(), narrow), narrow)
    assert turned == packed + narrow.nbytes
    with_bias = workspace_on_cpu(aten.addmm.default, (narrow[0], narrow, narrow), narrow)
    assert with_bias == packed


@pytest.mark.parametrize(("capability", "block"), [("AVX2", 8), ("AVX512", 16)])
def test_channels_are_copied_into_blocks(monkeypatch, capability, block):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    inputs, weight = torch.ones(2, 20, 6, 6), torch.ones(20, 20, 1, 1)
    of_block = 4 * 2 * 36 * (-(-20 // block) * block)
    found = workspace_on_cpu(aten.convolution.default, (inputs, weight), inputs)
    assert found == 2 * of_block + weight.nbytes - inputs.nbytes
    # The first layer reads its few channels as they lie.
    image, first = torch.ones(2, 3, 6, 6), torch.ones(20, 3, 1, 1)
    found = workspace_on_cpu(aten.convolution.default, (image, first), inputs)
    assert found == max(of_block + first.nbytes - inputs.nbytes, of_block)


def test_channels_that_lie_last_are_not_copied():
    inputs = torch.ones(2, 20, 6, 6).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(20, 20, 3, 3)
    found = workspace_on_cpu(aten.convolution.default, (inputs, weight), inputs)
    assert found == weight.nbytes


def test_a_process_grows_more_if_the_heap_keeps_gaps():
    assert reserve_on_cpu(0, "return") == reserve_on_cpu(0, "system") == 32 * MIB
    assert reserve_on_cpu(100 * MIB, "return") == 42 * MIB
    assert reserve_on_cpu(100 * MIB, "system") == reserve_on_cpu(100 * MIB, "keep") == 207 * MIB


def test_a_recurrent_layer_that_is_not_trained_keeps_nothing():
    result = (torch.ones(3, 2, 8), None, None, None)
    args = [None] * 15
    layer = aten.mkldnn_rnn_layer.default
    assert reserve_on_accelerator(layer, (*args, False), result) == 0
    assert reserve_on_accelerator(layer, (*args, True), result) == 6 * result[0].nbytes
    assert reserve_on_accelerator(aten.mm.default, (*args, True), result) == 0
    assert cpu_workspace.with_workspace(layer, (*args, False), result) is result


def test_what_an_accelerators_lstm_keeps_is_assumed_and_widens_the_bounds(make_task):
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = (
                nn.LSTM(8, 32, 2, batch_first=True, bidirectional=True),
                nn.Linear(64, 10),
            )

        def forward(self, x):
            return self.head(self.cells(x.unflatten(1, (8, 8)))[0][:, -1])

    found = predict_memory(make_task(model=Reading), Plan.baseline(), target="accelerator").memory
    kept = 4 * 6 * 8 * 32 * 32 * 4  # layers and directions, values, steps, sequences, units, bytes
    assert found.categories["activations"] > kept
    assert found.upper - found.peak == kept
    assert found.peak - found.lower == kept // 2
