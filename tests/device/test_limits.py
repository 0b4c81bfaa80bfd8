"""What a device can do at most, measured."""

import torch

from volano.device import Device, bf16_speed, limits, measure_limits


def test_limits_are_rates(monkeypatch):
    monkeypatch.setattr("volano.device.limits._SECONDS_PER_LIMIT", 0.02)
    found = measure_limits(Device("cpu"))
    assert found.matmul_fp32 > 1e8
    assert found.matmul_bf16 > 1e6
    assert found.memory_copy > 1e8
    assert found.host_to_device is None


def test_a_small_product_tells_how_fast_bf16_is_and_once(monkeypatch):
    limits._bf16_speed.cache_clear()
    before = torch.get_rng_state()
    speed = bf16_speed(Device("cpu"))
    assert 1e-4 < speed < 64
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(limits, "_rate", None)  # would fail
    assert bf16_speed(Device("cpu")) == speed


def test_the_rate_of_tf32_is_measured_where_there_are_units_for_it(monkeypatch):
    settings = []
    monkeypatch.setattr("volano.device.limits._SECONDS_PER_LIMIT", 0.001)
    monkeypatch.setattr(Device, "supports", lambda self, precision: precision in ("fp32", "tf32"))
    monkeypatch.setattr(
        "volano.device.limits._product",
        lambda *_: (lambda: settings.append(torch.backends.cuda.matmul.fp32_precision), 1e6),
    )
    found = measure_limits(Device("cpu"))
    assert found.matmul_tf32 > 0
    assert found.matmul_bf16 is None
    assert set(settings) == {"ieee", "tf32"}
    assert settings[0] == "ieee"
