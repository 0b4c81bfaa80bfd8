"""What a device reaches is measured once on a machine; what searches learned is kept."""

import pytest

from volano.device import Device, Limits
from volano.plan import Plan
from volano.plan.prediction import TimePrediction
from volano.planner.time import device_rates
from volano.planner.time.calibration import Calibration
from volano.planner.time.device_rates import keep_calibration, kept_calibration, rates_of
from volano.record.cache_folder import cache_folder

CPU = Device("cpu")
LIMITS = Limits(matmul_fp32=1e11, matmul_bf16=None, memory_copy=1e10, host_to_device=None)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """How often the device was measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(device_rates, "measure_limits", lambda _: calls.append(1) or LIMITS)
    monkeypatch.setattr(device_rates, "measure_kernels", lambda _: {"attention fp32": 5e10})
    return calls


def test_a_device_is_measured_once(measured):
    first = rates_of(CPU)
    assert rates_of(CPU) == first
    assert len(measured) == 1
    assert (first.flops, first.memory, first.link) == ({"fp32": 1e11}, 1e10, None)
    assert first.kernels == {"attention fp32": 5e10}
    assert first.origin == "calibrated"


def test_what_a_busy_processor_shows_is_neither_believed_nor_kept(measured, monkeypatch):
    found = {"attention fp32": 5e10, "convolution contiguous fp32": 1e7, "launch": 1e-5}
    monkeypatch.setattr(device_rates, "measure_kernels", lambda _: found)
    assert rates_of(CPU).kernels == {"attention fp32": 5e10}
    rates_of(CPU)
    assert len(measured) == 2
    # An accelerator's recurrent layers do lie that far below its products.
    limits = Limits(matmul_fp32=1e13, matmul_bf16=None, memory_copy=1e12, host_to_device=1e10)
    monkeypatch.setattr(device_rates, "measure_limits", lambda _: limits)
    assert "convolution contiguous fp32" in rates_of(CPU).kernels


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"limits": {}}', '{"limits": {"x": 1}, "kernels": {}}']
)
def test_a_damaged_record_is_measured_again(measured, text):
    rates_of(CPU)
    (path,) = (cache_folder() / "rates").glob("*.json")
    path.write_text(text)
    rates_of(CPU)
    assert len(measured) == 2
    rates_of(CPU)
    assert len(measured) == 2


def test_another_version_of_torch_is_another_device(measured, monkeypatch):
    rates_of(CPU)
    monkeypatch.setattr(device_rates, "versions", lambda: {"torch": "9.9"})
    rates_of(CPU)
    assert len(measured) == 2


def test_a_folder_that_cannot_be_written_costs_a_measurement_each_time(
    measured, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert rates_of(CPU) == rates_of(CPU)
    assert len(measured) == 2
    keep_calibration(Calibration())


def test_what_was_learned_is_kept(measured):
    assert kept_calibration() == Calibration()
    plan = Plan.baseline("cpu")
    learned = Calibration().update(
        plan, TimePrediction(step=1.0, bounds={"compute": 1.0}), 2.0, device="x"
    )
    keep_calibration(learned)
    assert kept_calibration() == learned != Calibration()
    (cache_folder() / "calibration.json").write_text("{")
    assert kept_calibration() == Calibration()
