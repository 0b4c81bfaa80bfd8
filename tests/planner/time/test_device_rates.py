"""What a device reaches is measured once on a machine; what searches learned is kept."""

import pytest

from volano.device import Device
from volano.plan import Plan
from volano.plan.prediction import TimePrediction
from volano.planner.time import device_rates
from volano.planner.time.calibration import Calibration
from volano.planner.time.device_rates import keep_calibration, kept_calibration, rates_of
from volano.record.cache_folder import cache_folder

CPU = Device("cpu")
LIMITS = {"matmul_fp32": 1e11, "memory_copy": 1e10, "host_to_device": None}
KERNELS = {"attention fp32": 5e10, "launch": 1e-5}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The names that were measured, by the call; a device with two kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def some(table):
        def measure(_, names):
            if names:
                calls.append(tuple(names))
            return {name: table.get(name) for name in names}

        return measure

    monkeypatch.setattr(device_rates, "measure_some_limits", some(LIMITS))
    monkeypatch.setattr(device_rates, "measure_kernels", some(KERNELS))
    monkeypatch.setattr(device_rates, "kernel_names", lambda _: tuple(KERNELS))
    return calls


def test_a_device_is_measured_once(measured):
    first = rates_of(CPU)
    calls = len(measured)
    assert rates_of(CPU) == first
    assert len(measured) == calls
    assert (first.flops, first.memory, first.link) == ({"fp32": 1e11}, 1e10, None)
    assert first.kernels == {"attention fp32": 5e10}
    assert first.origin == "calibrated"


def test_only_what_is_needed_is_measured_and_the_rest_when_it_is(measured):
    assert rates_of(CPU, ()).kernels == {}
    assert set(measured) == {("host_to_device", "matmul_fp32", "memory_copy"), ("launch",)}
    measured.clear()
    assert rates_of(CPU, ("fp32", "attention fp32")).kernels == {"attention fp32": 5e10}
    assert measured == [("attention fp32",)]
    measured.clear()
    rates_of(CPU, ("bf16", "attention bf16"))  # a type that the device lacks
    assert measured == [("matmul_bf16",)]
    measured.clear()
    rates_of(CPU, ("bf16", "fp16", "attention bf16"))
    assert measured == []


def test_what_a_busy_processor_shows_is_neither_believed_nor_kept(measured, monkeypatch):
    monkeypatch.setitem(KERNELS, "convolution contiguous fp32", 1e7)
    assert rates_of(CPU).kernels == {"attention fp32": 5e10}
    calls = len(measured)
    rates_of(CPU)
    assert len(measured) == 2 * calls
    # An accelerator's recurrent layers do lie that far below its products.
    monkeypatch.setitem(LIMITS, "host_to_device", 1e10)
    assert "convolution contiguous fp32" in rates_of(CPU).kernels


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"limits": {}}', '{"limits": {"x": 1}, "kernels": {}}'),
        '{"limits": {}, "kernels": {"launch": "fast"}}',
    ],
)
def test_a_damaged_record_is_measured_again(measured, text):
    rates_of(CPU)
    calls = len(measured)
    (path,) = (cache_folder() / "rates").glob("*.json")
    path.write_text(text)
    rates_of(CPU)
    assert len(measured) == 2 * calls
    rates_of(CPU)
    assert len(measured) == 2 * calls


def test_another_version_of_torch_is_another_device(measured, monkeypatch):
    rates_of(CPU)
    calls = len(measured)
    monkeypatch.setattr(device_rates, "versions", lambda: {"torch": "9.9"})
    rates_of(CPU)
    assert len(measured) == 2 * calls


def test_a_folder_that_cannot_be_written_costs_a_measurement_each_time(
    measured, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = rates_of(CPU)
    calls = len(measured)
    assert rates_of(CPU) == first
    assert len(measured) == 2 * calls
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
