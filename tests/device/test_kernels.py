"""Rates of typical operations: all that this CPU has, without a trace in the random state."""

import pytest
import torch

from volano.device import Device, measure_kernels
from volano.device.kernels import kernels_of


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("volano.device.kernels._SECONDS_PER_KERNEL", 0.001)


def _runs_here(name: str, precision: str) -> bool:
    """Asks torch itself: oneDNN has no recurrent kernel in bf16 on a processor without AVX-512."""
    device = Device("cpu")
    forward, leaves, _ = kernels_of(device)[name][0](device)
    try:
        with device.autocast(precision):
            out = forward()
        torch.autograd.grad(out.float().sum(), leaves)
    except RuntimeError:
        return False
    return True


def test_a_cpu_has_all_that_run_there(monkeypatch):
    monkeypatch.setattr(Device, "has_bf16_units", True)
    rates = measure_kernels(Device("cpu"))
    pairs = [
        (name, precision) for name in kernels_of(Device("cpu")) for precision in ("fp32", "bf16")
    ]
    names = {f"{name} {precision}" for name, precision in pairs if _runs_here(name, precision)}
    assert names >= {f"{name} fp32" for name in kernels_of(Device("cpu"))}
    assert rates.keys() == names | {"launch"}
    assert all(1e6 < rates[name] < 1e16 for name in names)
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
    assert "recurrent fp32" in rates
    assert not any(name.startswith(("convolution", "attention")) for name in rates)


def test_a_type_that_a_device_lacks_is_not_measured(monkeypatch):
    monkeypatch.setattr(Device, "has_bf16_units", False)
    assert not any("bf16" in name for name in measure_kernels(Device("cpu")))


def test_operations_are_counted_as_torch_counts_them():
    from torch.utils.flop_counter import FlopCounterMode

    device = Device("cpu")
    for make in kernels_of(device)["convolution contiguous"]:
        forward, leaves, flops = make(device)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(forward().sum(), leaves)
        assert counter.get_total_flops() == flops
