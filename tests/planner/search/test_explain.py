"""What a search answers: the decision in a line, and what became of every candidate."""

import dataclasses

import pytest

from planner.searching import PLAIN, cache, make_task, search
from report.explanations import make_explanation
from volano.plan.explanation import Candidate
from volano.planner.search.explain import headline

pytestmark = pytest.mark.usefixtures("cache")
__all__ = ["cache"]


def explained(*candidates):
    known = make_explanation()
    return dataclasses.replace(known, plan=candidates[0].plan, candidates=candidates, device="cpu")


class TestHeadline:
    fast = Candidate(plan=PLAIN.pin(compile=True), status="chosen", reason="", measured=0.02)

    def test_what_was_not_measured_has_no_figures(self):
        plain = Candidate(plan=PLAIN, status="chosen", reason="")
        assert headline(explained(plain)) == "plan: plain eager"

    def test_the_chosen_one_is_compared_with_plain_eager(self):
        plain = Candidate(plan=PLAIN.pin(threads=2), status="slower", reason="", measured=0.05)
        text = headline(explained(self.fast, plain))
        assert text.endswith(", 20 ms a step (plain eager 50, 2.50x)")

    def test_plain_eager_that_was_not_measured_is_not_compared(self):
        plain = Candidate(plan=PLAIN, status="failed", reason="")
        assert headline(explained(self.fast, plain)).endswith(", 20 ms a step")
        own = Candidate(plan=PLAIN, status="chosen", reason="", measured=0.05)
        assert headline(explained(own)) == "plan: plain eager, 50 ms a step"


def test_every_admissible_value_stands_in_the_explanation():
    for task in (make_task(), make_task(duration="20st")):
        explanation = search(task).explanation
        stands = {("precision", c.plan.precision) for c in explanation.candidates}
        stands |= {("optimizer", c.plan.optimizer) for c in explanation.candidates}
        stands |= {("allocator", c.plan.allocator) for c in explanation.candidates}
        stands |= {(refusal.knob, refusal.value) for refusal in explanation.refused}
        expected = {("precision", name) for name in ("fp32", "tf32", "bf16", "fp16")}
        expected |= {("optimizer", name) for name in ("as_given", "foreach", "fused")}
        expected |= {("allocator", name) for name in ("system", "keep")}
        assert expected | {("compile", True), ("memory_format", "channels_last")} <= stands
        assert all(c.reason for c in explanation.candidates)


def test_totals_are_those_by_which_it_was_decided():
    found = search()
    chosen, *others = found.explanation.candidates
    assert chosen.measured is not None
    assert chosen.total == pytest.approx(chosen.measured * 50000)
    assert all(
        c.total >= chosen.total for c in others if c.total is not None and c.status == "slower"
    )
