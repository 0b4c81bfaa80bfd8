"""Statistics that ranks share are torch's own where there is one rank."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from volano.device import Device
from volano.errors import PlanError
from volano.training.distributed.sync_batchnorm import share_batch_statistics


def test_batch_norms_of_every_kind_keep_their_names_and_values():
    model = nn.ModuleDict(
        {"a": nn.BatchNorm1d(3), "b": nn.Sequential(nn.BatchNorm2d(4, affine=False, momentum=None))}
    )
    before = model.state_dict()
    share_batch_statistics(model, Device("cpu"))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].data_ptr() == after[name].data_ptr() for name in before)
    assert not [m for m in model.modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d)]


@pytest.fixture
def group_of_one():
    """A process group in this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(16, 5), (6, 5, 7), (4, 5, 3, 3)])
def test_shared_statistics_of_one_rank_are_torchs_own(group_of_one, shape, dtype, affine):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    plain = kind(5, affine=affine, momentum=0.3)
    if dtype is torch.float64:
        plain = plain.double()
    if affine:
        torch.nn.init.normal_(plain.weight)
        torch.nn.init.normal_(plain.bias)
    shared = nn.ModuleList([copy.deepcopy(plain)])
    share_batch_statistics(shared, Device("cpu"))
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator, dtype=torch.float64).add(3).to(dtype)
    weights = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    results = []
    for layer in (plain, shared[0]):
        x = values.clone().requires_grad_()
        y = layer(x)
        (y * weights).sum().backward()
        results.append(
            [
                y,
                x.grad,
                *(p.grad for p in layer.parameters()),
                layer.running_mean,
                layer.running_var,
            ]
        )
    # The kernels add up in fp32 or wider; bf16 keeps eight bits of what comes out.
    close = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.04}[dtype]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=close, atol=close)


def test_a_norm_with_a_forward_pass_of_its_own_is_refused(group_of_one):
    class WithActivation(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).relu()

    with pytest.raises(
        PlanError,
        match="share the statistics of torch's own BatchNorm layers only; got a WithActivation",
    ):
        share_batch_statistics(nn.Sequential(WithActivation(3)), Device("cpu"))
