"""Figures of an explanation in words."""

import json

import pytest

from report.explanations import BASE, CHOSEN, MIB, SAFE, make_explanation
from volano.plan.explanation import Candidate, Explanation, Refusal
from volano.plan.network import NetworkFigures, NetworkPart
from volano.record.format import NOTHING
from volano.report.planning import amount, brief_seconds, milliseconds, ms_text, read_planning


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10_235, "10.0 KiB"), (102_350,
        "100 KiB"), (1023 * 1024, "0.999 MiB"), (1.18 * 2**30, "1.18 GiB"), (80 * 2**30,
        "80.0 GiB"), (2**51, "2,048 TiB"), (None, NOTHING), ("much", NOTHING),
    ],
)  # fmt: skip
def test_bytes(num_bytes, text):
    # 1023 KiB are written in the next unit: never four digits before a unit's name.
    assert amount(num_bytes) == text.replace("0.999 MiB", "1.00 MiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"), (4.56e-7, "0.000456"), (0.000926, "0.926"), (0.0033, "3.30"), (0.009996, "10.0"),
        (0.0412, "41.2"), (0.09996, "100"), (1.2345, "1,234"), (float("nan"), NOTHING), (None,
        NOTHING),
    ],
)  # fmt: skip
def test_milliseconds(seconds, text):
    assert milliseconds(seconds) == text
    assert ms_text(seconds) == (text if text == NOTHING else f"{text} ms")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.34, "340 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (99.9, "99.9 s"),
        (99.96, "1.7 min"), (5990, "99.8 min"), (6000, "1.7 h"), (10**7, "2,777.8 h"), (None,
        NOTHING),
    ],
)  # fmt: skip
def test_seconds_in_one_unit(seconds, text):
    assert brief_seconds(seconds) == text


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
        assert planning.candidates[2].levers == "plain eager"
        assert planning.levers == "bf16 + channels_last + fused + resident + keep memory"

    def test_a_pin_that_all_share_is_not_plain_eager(self):
        pinned = BASE.pin(precision="bf16")
        planning = planning_of(
            candidates=(candidate(pinned), candidate(pinned.pin(allocator="keep")))
        )
        assert planning.common == "bf16, resident"
        assert [row.levers for row in planning.candidates] == ["nothing more", "keep memory"]

    def test_a_single_one_is_told_whole(self):
        planning = planning_of(candidates=(candidate(SAFE),))
        assert (planning.common, planning.candidates[0].levers) == (
            "resident",
            "fused + keep memory",
        )

    def test_another_device_is_no_lever(self):
        plans = [plan.pin(device="xpu:0") for plan in (CHOSEN, BASE)]
        planning = planning_of(plan=plans[0], candidates=tuple(map(candidate, plans)))
        assert "xpu" not in planning.levers
        assert planning.candidates[1].levers == "plain eager"

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
