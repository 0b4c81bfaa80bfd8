"""How the plan of a run comes about: given, found, or plain eager."""

import json
import sys

import pytest

import volano
from volano.errors import PlanError, UsageError
from volano.plan import Plan
from volano.planner import EXPLANATION


def test_a_run_keeps_its_explanation_and_a_resume_its_plan(make_task, quiet, tmp_path):
    run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    record = json.loads((run.path / EXPLANATION).read_text())
    assert volano.Explanation.from_json(record).plan == run.plan
    assert record["origin"] == "trusted"
    assert any(notice.startswith("plan: ") for notice in run.notices)


def test_a_file_is_taken_as_it_is(make_task, quiet, tmp_path):
    plan = Plan.baseline().pin(micro_batch=8, threads=1)
    plan.save(tmp_path / "mine.json")
    run = volano.train(
        make_task(), plan=tmp_path / "mine.json", out=tmp_path / "run", observer=quiet
    )
    assert run.plan == plan
    assert not (run.path / EXPLANATION).exists()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"device": "xpu:0"}, "for a device of this machine; got device='xpu:0'"),
        ({"micro_batch": 64}, "part of the batch; got micro_batch=64"),
        ({"precision": "fp16"}, "computes in"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(make_task, tmp_path, knobs, message):
    with pytest.raises(PlanError, match=message):
        volano.train(make_task(), plan=Plan.baseline().pin(**knobs), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_beyond_the_tolerance_is_refused(make_task, tmp_path):
    plan = Plan.baseline().pin(precision="bf16")
    with pytest.raises(PlanError, match="tolerance is 'exact'"):
        volano.train(make_task(tolerance="exact"), plan=plan, out=tmp_path / "run")


class TestExplain:
    def test_of_a_task_with_what_is_measured(self, make_task):
        found = volano.explain(make_task(), forbid={"compile": True}, analyze=True)
        assert found.actual["step"] > 0
        assert found.actual["memory_bytes"] > 0
        assert found.verdict == "FITS"
        assert abs(found.actual["memory_error"]) < 0.05

    def test_nothing_is_run_to_be_measured_where_nothing_fits(self, make_task, monkeypatch):
        monkeypatch.setattr(
            sys.modules["volano.api.explain"], "measured_beside", None
        )  # would fail
        found = volano.explain(make_task(), budget=1000, forbid={"compile": True}, analyze=True)
        assert found.verdict == "NO"
        assert "nothing was measured" in found.notices[-1]

    def test_an_application_under_a_budget_that_is_too_small(self):
        found = volano.explain(
            "image", minutes=0.2, budget=1000, forbid={"compile": True}, device="cpu"
        )
        assert found.verdict == "NO"
        assert found.needed > 1000

    def test_on_another_device_nothing_runs(self, make_task):
        with pytest.raises(UsageError, match="needs the device itself"):
            volano.explain(make_task(), on="H100", analyze=True)
        with pytest.raises(UsageError, match="for one device"):
            volano.explain(make_task(), on="H100", device="cpu")

    def test_no_task(self):
        with pytest.raises(UsageError, match=r"an application or a task of your own"):
            volano.explain(3)
