"""Rates of typical operations: all that a CPU has, without a trace in the random state."""

import pytest
import torch

from volano.device import Device, kernels, measure_kernels


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("volano.device.kernels._SECONDS_PER_KERNEL", 0.001)


def test_a_cpu_has_them_all_in_both_types():
    rates = measure_kernels(Device("cpu"))
    names = {f"{name} {precision}" for name in kernels._KERNELS for precision in ("fp32", "bf16")}
    assert rates.keys() == names | {"launch"}
    assert all(1e7 < rates[name] < 1e16 for name in names)
    assert 1e-8 < rates["launch"] < 1e-2


def test_random_state_is_as_before():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    measure_kernels(Device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_backend_lacks_is_missing(monkeypatch):
    def lacking(*_, **__):
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr("torch.nn.functional.conv2d", lacking)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", lacking)
    rates = measure_kernels(Device("cpu"))
    assert rates.keys() == {"recurrent fp32", "recurrent bf16", "launch"}


def test_a_type_that_a_device_lacks_is_not_measured(monkeypatch):
    monkeypatch.setattr(Device, "supports", lambda self, precision: precision == "fp32")
    assert not any("bf16" in name for name in measure_kernels(Device("cpu")))


def test_operations_are_counted_as_torch_counts_them():
    from torch.utils.flop_counter import FlopCounterMode

    device = Device("cpu")
    forward, leaves, flops = kernels._KERNELS["convolution contiguous"](device)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(forward().sum(), leaves)
    assert counter.get_total_flops() == flops
