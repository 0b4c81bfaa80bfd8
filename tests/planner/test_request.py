import pytest

from volano import Plan
from volano.errors import UsageError
from volano.planner import PlanRequest


class TestPlanRequest:
    def test_a_whole_plan_leaves_nothing_to_choose(self):
        for given in (
            {"device": "cpu"},
            {"pins": {"threads": 1}},
            {"budget": 1},
            {"forbid": {"compile": True}},
        ):
            with pytest.raises(UsageError, match="leaves nothing to choose"):
                PlanRequest(plan=Plan.baseline(), **given)

    def test_pins_left_open_are_no_pins(self):
        assert PlanRequest(pins={"precision": None}).pins == {}

    def test_forbidden_values_are_many(self):
        planning = PlanRequest(forbid={"precision": "bf16", "threads": [1, 2]}).without(
            "compile", True
        )
        assert planning.forbid == {"precision": ("bf16",), "threads": (1, 2), "compile": (True,)}
        assert PlanRequest(pins={"compile": True}).without("compile", True).forbid == {}

    def test_the_last_value_that_is_left_is_not_forbidden(self):
        assert PlanRequest(forbid={"compile": False}).without("compile", True).forbid == {
            "compile": (False,)
        }
        assert PlanRequest(forbid={"compile": True}).without("compile", True).forbid == {
            "compile": (True,)
        }

    def test_the_quick_one_refuses_nothing(self):
        quick = PlanRequest(
            device="cpu", budget=1, pins={"precision": "tf32"}, forbid={"compile": True}
        ).quick()
        assert quick == PlanRequest(device="cpu", is_raced=False)

    def test_a_budget_is_bytes(self):
        with pytest.raises(UsageError, match="above 0; got 0"):
            PlanRequest(budget=0)
