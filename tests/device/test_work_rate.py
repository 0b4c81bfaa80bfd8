"""A rate is measured in a fraction of a second on a device of any speed. The clock is simulated."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.device import Device
from volano.device import work_rate as module
from volano.device.work_rate import Work, measure_rate

LIMIT_SECONDS = 0.25
# Floating-point operations of square products, each eight times the one before.
AMOUNTS = [2 * side**3 for side in (128, 256, 512, 1024, 2048, 4096)]


class SimulatedDevice:
    """Does ``flops`` per second after ``overhead_seconds`` for each repetition, and counts what it
    ran."""

    def __init__(self, flops: float, overhead_seconds: float = 0.0) -> None:
        self.flops, self.overhead_seconds = flops, overhead_seconds
        self.now = 0.0
        self.ran: list[float] = []

    def run(self, amount: float) -> None:
        self.ran.append(amount)
        self.now += self.overhead_seconds + amount / self.flops

    def work(self, amount: float) -> Work:
        return partial(self.run, amount), amount

    def measure(self) -> float:
        with pytest.MonkeyPatch.context() as patch:
            # Reading the clock takes some time too, so that repetitions without any end.
            def perf_counter() -> float:
                self.now += 1e-6
                return self.now

            patch.setattr(module.time, "perf_counter", perf_counter)
            works = [partial(self.work, amount) for amount in AMOUNTS]
            return measure_rate(Device("cpu"), works, limit_seconds=LIMIT_SECONDS)


@given(st.floats(8, 13), st.floats(0, 1e-3))
def test_any_device_is_measured_in_time(exponent, overhead_seconds):
    device = SimulatedDevice(10**exponent, overhead_seconds)
    rate = device.measure()
    assert rate <= device.flops * (1 + 1e-9)
    # A warm-up, a fifth of the limit and one repetition over for each, and the limit for the
    # largest.
    most = LIMIT_SECONDS * (1 + 1 + (0.2 + 2) * len(AMOUNTS)) + 3 * (
        overhead_seconds + AMOUNTS[0] / device.flops
    )
    assert device.now <= most


def test_a_fast_device_is_measured_by_the_largest_product():
    device = SimulatedDevice(1e12, 1e-5)
    assert device.measure() == pytest.approx(1e12, rel=0.01)
    assert max(device.ran) == AMOUNTS[-1]


def test_a_slow_device_is_spared_the_larger_ones():
    device = SimulatedDevice(1e9)  # bf16 on a processor without units for it
    assert device.measure() == pytest.approx(1e9, rel=0.01)
    assert max(device.ran) / device.flops <= LIMIT_SECONDS


def test_a_wait_that_each_repetition_has_hides_no_rate():
    """As for a second thread on a shared machine: a small product says a thousandth of what a large
    one does."""
    device = SimulatedDevice(60e9, 14e-3)
    assert device.measure() > 0.5 * 60e9


def test_larger_works_that_fail_are_left_out():
    device = SimulatedDevice(1e12)

    def failing() -> Work:
        raise RuntimeError("out of memory")

    works = [partial(device.work, AMOUNTS[0]), failing]
    assert measure_rate(Device("cpu"), works, limit_seconds=1e-3) > 0
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_rate(Device("cpu"), [failing], limit_seconds=1e-3)


def test_the_clock_of_an_accelerator_rises_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(module, "_WARM_SECONDS", 0.005)
    monkeypatch.setattr(module, "_WARM_SIZE", 8)

    class Elsewhere(Device):
        def __init__(self):
            super().__init__("cpu")
            self.is_cpu, self.num_waits = False, 0

        def synchronize(self):
            self.num_waits += 1

    device = Elsewhere()
    module.warm_clock(device)
    assert device.num_waits > 0
    device.is_cpu, device.num_waits = True, 0
    module.warm_clock(device)
    assert device.num_waits == 0
