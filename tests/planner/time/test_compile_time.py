"""What compiling took on a machine is the measure of what it will take."""

import pytest

from volano.device import Device
from volano.planner.time import compile_time
from volano.planner.time.compile_time import CompileTime, processor_slowness
from volano.record.cache_folder import cache_folder

CPU = Device("cpu")


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compile_time, "processor_slowness", lambda: 2.5)


def test_at_first_the_processor_tells_and_then_the_longest_of_the_last_three():
    found = CompileTime(CPU)
    assert (found.is_measured, found.factor) == (False, 2.5)
    factors = []
    for measured in (40.0, 5.0, 10.0, 15.0):
        found.note(5.0, measured)
        factors.append(found.factor)
    assert factors == [8.0, 8.0, 8.0, 3.0]
    again = CompileTime(CPU)
    assert (again.is_measured, again.factor) == (True, 3.0)


def test_a_fast_processor_promises_nothing(monkeypatch):
    monkeypatch.setattr(compile_time, "processor_slowness", lambda: 0.5)
    assert CompileTime(CPU).factor == 1.0


def test_another_version_of_torch_is_another_machine(monkeypatch):
    CompileTime(CPU).note(5.0, 40.0)
    monkeypatch.setattr(compile_time, "versions", lambda: {"torch": "9.9"})
    assert not CompileTime(CPU).is_measured
    CompileTime(CPU).note(5.0, 5.0)
    monkeypatch.undo()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1, "ratios": {"x": "y"}}'])
def test_a_damaged_file_is_nothing_known(text):
    CompileTime(CPU).note(5.0, 40.0)
    (cache_folder() / "compilation.json").write_text(text)
    assert not CompileTime(CPU).is_measured


@pytest.mark.parametrize("measured", [0.0, float("inf"), float("nan")])
def test_what_is_no_time_is_not_kept(measured):
    found = CompileTime(CPU)
    found.note(5.0, measured)
    assert not found.is_measured


def test_a_folder_that_cannot_be_written_hinders_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = CompileTime(CPU)
    found.note(5.0, 10.0)
    assert found.factor == 2.0


def test_the_loop_takes_some_time():
    assert 0.1 < processor_slowness.__wrapped__() < 1000
