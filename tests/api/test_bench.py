"""What is compared when, with a clock that stands still and with a small task."""

import pytest

import volano
from volano.api import bench as module
from volano.benchmark.rounds import StepGain
from volano.errors import TaskError, UsageError

TASK = """
from volano.benchmark.tasks import pack_tasks
task = pack_tasks(50)[0]
"""


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "_clock", clock)
    return clock


def row(name, place):
    return module.BenchRow(
        task=name, device=place.name, plain_seconds=0.2, planned_seconds=0.1, planning_seconds=9.0,
        gain=StepGain(median=2.0, least=1.9, most=2.1), run_gain=1.8, num_rounds=3,
        plan="plain eager",
    )  # fmt: skip


def test_time_is_shared_and_what_does_not_fit_is_said(clock, monkeypatch):
    heard = []

    def compare(name, place, deadline, run_seconds):
        heard.append((name, deadline, run_seconds))
        clock.now += 100.0
        if name == "text":
            raise TaskError("A task must be there", got="none")
        return row(name, place)

    monkeypatch.setattr(module, "_compare", compare)
    monkeypatch.setattr(module, "_compare_pack", compare)
    result = volano.bench(minutes=5, device="cpu")
    assert heard == [("image", 75.0, 180.0), ("text", pytest.approx(100 + 200 / 3), 180.0),
                     ("video", 250.0, 180.0)]  # fmt: skip
    assert [found.task for found in result.rows] == ["image", "video"]
    assert result.left_out == (
        "text on cpu: A task must be there; got none.",
        f"{module.PACK} on cpu: no time was left",
    )
    assert result.to_json()["rows"][0]["gain"]["median"] == 2.0


def test_a_run_is_net_of_what_comes_before_it():
    found = {"plain": [0.2, 0.2, 0.2], "planned": [0.1, 0.1, 0.1]}
    made = module._row("image", volano.Device("cpu"), found, 10.0, 100.0, "x")
    assert made.run_gain == pytest.approx(100 / (10 + 50))
    assert made.gain.median == pytest.approx(2.0)


def test_a_task_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_to_compare.py").write_text(TASK)
    monkeypatch.setattr("volano.benchmark.rounds._BLOCK_SECONDS", 0.01)
    (only,) = volano.bench(
        f"{tmp_path}/own_to_compare.py:task", minutes=0.01, device="cpu"
    ).rows  # fmt: skip
    assert only.num_rounds >= 3
    assert only.gain.least <= only.gain.median <= only.gain.most


@pytest.mark.parametrize(
    ("what", "minutes", "message"), [("image", 5, "module:task"), (None, 0, "`minutes`")]
)
def test_mistakes(what, minutes, message):
    with pytest.raises(UsageError, match=message):
        volano.bench(what, minutes=minutes, device="cpu")
