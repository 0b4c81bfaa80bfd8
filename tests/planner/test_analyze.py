"""What is measured of a plan, next to what was predicted; the steps are made up."""

import dataclasses
from types import SimpleNamespace

import pytest

from volano.device.device import Memory
from volano.plan import Plan
from volano.plan.prediction import MemoryPrediction
from volano.planner import analyze
from volano.planner.analyze import measured_beside


@dataclasses.dataclass(frozen=True)
class Explained:
    """What is looked at of an explanation."""

    plan: Plan
    memory: MemoryPrediction = dataclasses.field(
        default_factory=lambda: MemoryPrediction(peak=60, lower=60, upper=60)
    )
    time: object = dataclasses.field(default_factory=lambda: SimpleNamespace(step=0.03))
    notices: tuple[str, ...] = ("said before",)
    actual: object = None


@pytest.fixture
def measured(monkeypatch):
    device = SimpleNamespace(
        is_cpu=False, reset_peak_memory=lambda: None,
        memory=lambda: Memory(allocated=0, peak=50, total=100),
    )  # fmt: skip
    monkeypatch.setattr(analyze, "Device", lambda _: device)
    monkeypatch.setattr(
        analyze, "measure_step_time", lambda *_, **__: SimpleNamespace(step=0.02, startup=1.0)
    )
    memory = MemoryPrediction(peak=40, lower=40, upper=40, categories={"batch": 40})
    monkeypatch.setattr(analyze, "measure", lambda *_: memory)
    return device


def test_an_eager_step_is_measured_by_its_tensors(measured):
    found = measured_beside(None, Explained(Plan()))
    assert found.actual["memory"] == {"batch": 40}
    assert found.actual["step_error"] == pytest.approx(0.5)
    assert found.actual["memory_error"] == pytest.approx(0.5)
    assert found.notices == ("said before",)


def test_compiled_code_is_measured_by_the_device_s_allocator_if_it_has_one(measured):
    found = measured_beside(None, Explained(Plan(compile=True)))
    assert found.actual["memory_bytes"] == 50
    assert found.actual["memory_error"] == pytest.approx(0.2)
    assert "memory" not in found.actual
    measured.is_cpu = True
    found = measured_beside(None, Explained(Plan(compile=True)))
    assert "memory_bytes" not in found.actual
    assert found.notices == ("said before", "memory of compiled code is not measured")
