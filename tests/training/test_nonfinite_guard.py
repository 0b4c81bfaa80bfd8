"""A gradient that is not finite is kept from the weights."""

import pytest
import torch
from torch import nn

import volano
from volano.device.torch_private import check_and_unscale
from volano.training import nonfinite_guard
from volano.training.nonfinite_guard import NonfiniteGuard


def test_a_float64_and_a_complex_parameter_are_looked_at_too():
    for dtype in (torch.float64, torch.complex64, torch.bfloat16):
        parameters = [nn.Parameter(torch.ones(3, dtype=dtype)), nn.Parameter(torch.ones(3))]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        guard = NonfiniteGuard(
            volano.Device("cpu"), optimizer, has_scaler=False, reads_at_once=False
        )
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.3)
        kept = [parameter.grad.clone() for parameter in parameters]
        assert guard.lets_pass(torch.tensor(1.0), None)
        assert all(torch.equal(p.grad, g) for p, g in zip(parameters, kept, strict=True))
        parameters[0].grad[1] = float("inf")
        assert not guard.lets_pass(torch.tensor(1.0), None)
        parameters[0].grad[1] = 0.0
        assert guard.lets_pass(torch.tensor(1.0), None)


def test_a_sparse_gradient_is_looked_at():
    embedding = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    guard = NonfiniteGuard(volano.Device("cpu"), optimizer, has_scaler=False, reads_at_once=False)
    embedding(torch.tensor([1, 2])).sum().backward()
    assert guard.lets_pass(torch.tensor(1.0), None)
    (embedding(torch.tensor([1, 2])).sum() * float("inf")).backward()
    assert not guard.lets_pass(torch.tensor(1.0), None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_kernel_for_a_type_norms_say_the_same(dtype, monkeypatch):
    """As for bf16 on CUDA (pytorch#127176)."""
    looked_at = []

    def missing(tensors, *others):
        if tensors[0].dtype == dtype:
            raise NotImplementedError
        looked_at.append(tensors[0].dtype)
        check_and_unscale(tensors, *others)

    monkeypatch.setattr(nonfinite_guard, "check_and_unscale", missing)
    parameter = nn.Parameter(torch.ones(3, dtype=dtype))
    guard = NonfiniteGuard(
        volano.Device("cpu"),
        torch.optim.SGD([parameter], lr=0.1),
        has_scaler=False,
        reads_at_once=False,
    )
    parameter.grad = torch.ones_like(parameter)
    assert guard.lets_pass(torch.tensor(1.0), None)
    parameter.grad[0] = float("nan")
    assert not guard.lets_pass(torch.tensor(1.0), None)
    parameter.grad[0] = 1.0
    assert guard.lets_pass(torch.tensor(1.0), None)
    assert dtype not in looked_at


def guard_of(*parameters, **options):
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    known = {"has_scaler": False, "reads_at_once": True, **options}
    return NonfiniteGuard(volano.Device("cpu"), optimizer, **known)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_or_a_norm_that_is_not_finite_stops_the_update(bad):
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    guard = guard_of(parameter)
    assert guard.lets_pass(torch.tensor(1.0), torch.tensor(1.0))
    assert not guard.lets_pass(torch.tensor(bad), torch.tensor(1.0))
    assert not guard.lets_pass(torch.tensor(1.0), torch.tensor(bad))


def test_a_scaler_looks_at_gradients_itself():
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.full((3,), float("inf"))
    guard = guard_of(parameter, has_scaler=True)
    assert guard.lets_pass(torch.tensor(1.0), torch.tensor(float("inf")))
    assert not guard.lets_pass(torch.tensor(float("nan")), None)


def test_a_flag_that_another_rank_has_raised_counts():
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    guard = guard_of(parameter, share=lambda flag: flag.fill_(1.0))
    assert not guard.lets_pass(torch.tensor(1.0), None)


def test_parameters_without_a_gradient_are_left_out():
    used, idle = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    used.grad = torch.ones(3)
    assert guard_of(used, idle).lets_pass(torch.tensor(1.0), None)
    assert guard_of(idle).lets_pass(torch.tensor(1.0), None)


def test_on_the_cpu_nothing_is_deferred():
    guard = guard_of(nn.Parameter(torch.ones(3)), reads_at_once=False)
    assert (guard.is_deferred, guard.holds_back, guard.num_flagged) == (False, True, 0)


def test_loss_norm_and_gradients_are_looked_at_together():
    """As on an accelerator, where each look is a launch."""
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    guard = guard_of(*parameters)
    guard._is_cpu, looks = False, []
    look = guard._look
    guard._look = lambda tensors: (looks.append(len(tensors)), look(tensors))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    assert guard.lets_pass(torch.tensor(1.0), torch.tensor(2.0))
    assert guard.lets_pass(torch.tensor(1.0), None)
    assert guard.lets_pass(torch.tensor(1.0, dtype=torch.bfloat16), None)
    assert looks == [2, 3, 1, 2]
    assert not guard.lets_pass(torch.tensor(float("nan")), None)
    assert not guard.lets_pass(torch.tensor(1.0), torch.tensor(float("inf")))
    parameters[1].grad[0] = float("inf")
    assert not guard.lets_pass(torch.tensor(1.0), None)
