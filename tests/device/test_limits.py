"""What a device can do at most, measured."""

from volano.device import Device, measure_limits


def test_limits_are_rates(monkeypatch):
    monkeypatch.setattr("volano.device.limits._SECONDS_PER_LIMIT", 0.02)
    limits = measure_limits(Device("cpu"))
    assert limits.matmul_fp32 > 1e8
    assert limits.matmul_bf16 > 1e6
    assert limits.memory_copy > 1e8
    assert limits.host_to_device is None
