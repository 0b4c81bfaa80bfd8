"""Figures of an explanation in words."""

import json

import pytest

from report.explanations import BASE, CHOSEN, MIB, SAFE, make_explanation
from volano.plan.explanation import Candidate, Explanation, Refusal
from volano.plan.network import NetworkFigures, NetworkPart
from volano.report.planning import read_planning


def planning_of(**changes):
    return read_planning(
        Explanation.from_json(json.loads(json.dumps(make_explanation(**changes).to_json())))
    )


def candidate(plan, **changes):
    return Candidate(plan=plan, status="slower", reason="why", **changes)


class TestLevers:
    def test_what_all_candidates_share_is_said_once(self):
        planning = planning_of()
        assert planning.common == "resident"
        assert planning.candidates[2].plan == "plain eager"
        assert planning.plan == "bf16 + channels_last + fused + resident + keep memory"

    def test_a_pin_that_all_share_is_not_plain_eager(self):
        pinned = BASE.pin(precision="bf16")
        planning = planning_of(
            candidates=(candidate(pinned), candidate(pinned.pin(allocator="keep")))
        )
        assert planning.common == "bf16, resident"
        assert [row.plan for row in planning.candidates] == ["nothing more", "keep memory"]

    def test_a_single_one_is_told_whole(self):
        planning = planning_of(candidates=(candidate(SAFE),))
        assert (planning.common, planning.candidates[0].plan) == ("resident", "fused + keep memory")

    def test_another_device_is_no_knob(self):
        plans = [plan.pin(device="xpu:0") for plan in (CHOSEN, BASE)]
        planning = planning_of(plan=plans[0], candidates=tuple(map(candidate, plans)))
        assert "xpu" not in planning.plan
        assert planning.candidates[1].plan == "plain eager"

    def test_the_class_is_the_widest(self):
        assert planning_of().semantics == "precision"
        assert planning_of(plan=SAFE).semantics == "rounding"
        assert planning_of(plan=BASE).semantics == "exact"


def test_shares_are_of_the_whole_and_bars_of_the_longest():
    bars = {bar.name: bar for bar in planning_of().memory}
    assert list(bars) == [
        "activations",
        "optimizer state",
        "parameters",
        "gradients",
        "temporaries",
        "batch",
    ]
    assert (bars["parameters"].text, bars["parameters"].share) == ("48.0 MiB", "8 %")
    assert bars["activations"].percent == 100
    assert bars["parameters"].percent == pytest.approx(100 * 48 / 380, abs=0.01)


def test_what_no_category_names_is_other():
    record = make_explanation().to_json()
    record["memory"]["peak"] += 32 * MIB
    assert ("other", "32.0 MiB") in [
        (bar.name, bar.text) for bar in read_planning(Explanation.from_json(record)).memory
    ]


def test_a_prediction_that_is_right_and_one_that_is_not():
    assert planning_of(measured=0.0412).bounds_facts[0].endswith("the prediction is right")
    assert planning_of(measured=0.0824).bounds_facts[0].endswith("the prediction is 50 % too short")
    rows = {
        name: error
        for name, _, _, error in planning_of(actual={"step": 0.0412, "memory_bytes": 0}).actual
    }
    assert rows == {"step": "0.0 %", "memory": ""}


@pytest.mark.parametrize(
    ("verdict", "words"), [("NO", "it does not fit"), ("UNCERTAIN", "it may not fit")]
)
def test_a_candidate_that_does_not_fit_says_so(verdict, words):
    row = planning_of(candidates=(candidate(SAFE, verdict=verdict),)).candidates[0]
    assert row.reason == f"why; {words}"


def test_control_characters_do_not_reach_a_terminal():
    refused = (Refusal(knob="\x1b[2Jknob", value="\x9b31m", reason="a\x00b\nc"),)
    changes = {"task": "\x1b]0;title\x07", "origin": "\x1bc", "actual": {"\x1b[A": "\x1b[B"}}
    planning = read_planning(make_explanation(refused=refused, **changes))
    shown = f"{planning.task}{planning.origin}{planning.refused}{planning.actual}"
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\x00"}
    assert "a\ufffdb c" in shown


@pytest.mark.parametrize(
    ("is_measured", "how"), [(True, "measured steps"), (False, "a few examples")]
)
def test_the_network_is_shown_by_part_with_what_keeping_saves(is_measured, how):
    parts = (
        NetworkPart(name="trunk", module="Net", parameters=1_200, trained=0),
        NetworkPart(name="head", module="Linear", parameters=34, trained=30),
    )
    network = NetworkFigures(
        parts=parts, frozen="what 3 of 4 layers compute is kept", saved_seconds=75.0,
        is_measured=is_measured,
    )  # fmt: skip
    found = read_planning(make_explanation(network=network))
    assert found.network == (
        ("trunk", "Net", "1,200", "frozen"),
        ("head", "Linear", "34", "30"),
        ("together", "", "1,234", "30"),
    )
    assert found.network_facts == (
        "what 3 of 4 layers compute is kept",
        f"that saves 1 min 15 s of the run, predicted from {how}",
    )
    assert read_planning(make_explanation()).network == ()
