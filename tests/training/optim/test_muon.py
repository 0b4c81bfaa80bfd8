"""Muon against torch.optim.Muon, AdamW against torch.optim.AdamW."""

import copy

import pytest
import torch

from volano.device import Device
from volano.errors import TaskError
from volano.training import MuonAdamW

SHAPES = [(32, 64), (64, 32), (32, 64), (10, 40), (16, 16)]


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def give_gradients(*lists, seed):
    generator = torch.Generator().manual_seed(seed)
    for row in zip(*lists, strict=True):
        gradient = torch.randn(row[0].shape, generator=generator)
        for parameter in row:
            parameter.grad = gradient.clone()


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_is_torchs(adjust, nesterov):
    theirs, ours = parameters(), parameters()
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "nesterov": nesterov}
    reference = torch.optim.Muon(theirs, ns_steps=5, adjust_lr_fn=adjust, **options)
    optimizer = MuonAdamW([{"params": ours, "algorithm": "muon", "adjust_lr": adjust, **options}])
    for seed in range(10):
        give_gradients(theirs, ours, seed=seed)
        reference.step()
        optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            # Theirs iterates in bf16 (8 bits), ours in bf16 in another order or in fp32; relative
            # to a step.
            torch.testing.assert_close(one, other, rtol=0, atol=2**-6 * 0.02 * (seed + 1) * 8)


def test_adamw_is_torchs():
    theirs, ours = parameters(), parameters()
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.8, 0.95))
    optimizer = MuonAdamW(
        [
            {
                "params": ours,
                "algorithm": "adamw",
                "lr": 0.01,
                "weight_decay": 0.1,
                "betas": (0.8, 0.95),
            }
        ]
    )
    for seed in range(10):
        give_gradients(theirs, ours, seed=seed)
        reference.step()
        optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_kernel_is_a_matrix_in_any_memory_format():
    contiguous = torch.nn.Parameter(torch.randn(8, 4, 3, 3))
    last = torch.nn.Parameter(contiguous.detach().clone().to(memory_format=torch.channels_last))
    contiguous.grad = torch.randn(8, 4, 3, 3)
    last.grad = contiguous.grad.clone().to(memory_format=torch.channels_last)
    for parameter in (contiguous, last):
        MuonAdamW([{"params": [parameter], "algorithm": "muon", "lr": 0.1}]).step()
    torch.testing.assert_close(contiguous, last)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_renormalized_kernels_have_the_norm_of_an_orthogonal_matrix():
    ours = parameters()
    optimizer = MuonAdamW([{"params": ours, "algorithm": "muon", "lr": 0.1, "renormalize": True}])
    give_gradients(ours, seed=0)
    optimizer.step()
    for parameter in ours:
        assert parameter.norm().item() == pytest.approx(min(parameter.shape) ** 0.5, rel=1e-5)


def test_state_goes_round():
    ours = parameters()

    def groups(of):
        return [{"params": of[:2], "algorithm": "adamw"}, {"params": of[2:], "algorithm": "muon"}]

    optimizer = MuonAdamW(groups(ours))
    give_gradients(ours, seed=0)
    optimizer.step()
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    other = MuonAdamW(groups(copies))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (1, 2):
        give_gradients(ours, copies, seed=seed)
        optimizer.step()
        other.step()
    for one, two in zip(ours, copies, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"algorithm": "lion"}, "'muon' or 'adamw'; got 'lion'"),
        (
            {"algorithm": "adamw", "momentum": 0.9},
            r"An adamw group can take only|A adamw group can take only",
        ),
        ({"algorithm": "muon", "adjust_lr": "none"}, "adjust_lr must be"),
        (
            {"algorithm": "muon", "params": [torch.nn.Parameter(torch.zeros(3))]},
            r"matrices and kernels only; got .*\(3,\)",
        ),
    ],
)
def test_a_wrong_group_is_refused(group, message):
    with pytest.raises(TaskError, match=message):
        MuonAdamW([{"params": [torch.nn.Parameter(torch.zeros(3, 3))], **group}])


@pytest.mark.parametrize(
    ("has_units", "expected"), [(True, torch.bfloat16), (False, torch.float32)]
)
def test_the_iteration_runs_in_what_the_processor_has_units_for(monkeypatch, has_units, expected):
    monkeypatch.setattr(Device, "has_bf16_units", has_units)
    (group,) = MuonAdamW([{"params": parameters(), "algorithm": "muon"}]).param_groups
    assert group["ns_dtype"] == expected
    (group,) = MuonAdamW(
        [{"params": parameters(), "algorithm": "muon", "ns_dtype": torch.float64}]
    ).param_groups
    assert group["ns_dtype"] == torch.float64


def test_a_resumed_optimizer_keeps_its_arithmetic(monkeypatch):
    monkeypatch.setattr(Device, "has_bf16_units", True)
    state = MuonAdamW([{"params": parameters(), "algorithm": "muon"}]).state_dict()
    monkeypatch.setattr(Device, "has_bf16_units", False)
    optimizer = MuonAdamW([{"params": parameters(), "algorithm": "muon"}])
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["ns_dtype"] == torch.bfloat16
