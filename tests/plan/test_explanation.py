"""Explanations as JSON, there and back."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.explanations import CHOSEN, make_explanation
from volano.errors import PlanError
from volano.plan import Plan
from volano.plan.explanation import Refusal
from volano.plan.prediction import CATEGORIES, MemoryPrediction, TimePrediction
from volano.planner import Candidate, Explanation

seconds = st.floats(0, 1e9)
maybe_seconds = st.none() | seconds
counts = st.integers(0, 2**48)
verdicts = st.sampled_from([None, "FITS", "NO", "UNCERTAIN"])
plans = st.builds(
    Plan,
    precision=st.sampled_from(["fp32", "bf16"]),
    compile=st.booleans(),
    micro_batch=st.none() | st.integers(1, 99),
    threads=st.none() | st.integers(1, 9),
    activation_budget=st.floats(0, 1),
)
times = st.builds(
    lambda parts, startup: TimePrediction(
        step=sum(parts), startup=startup, bounds=dict(zip(("compute", "memory", "launch", "host"),
        parts, strict=True)), origin="prior",
    ),
    st.lists(seconds, min_size=4, max_size=4),
    seconds,
)  # fmt: skip
memories = st.builds(
    lambda parts, more: MemoryPrediction(
        peak=sum(parts), lower=sum(parts), upper=sum(parts) + more,
        categories=dict(zip(CATEGORIES, parts, strict=True)), operator="aten.mm", host=more,
        origin="prior",
    ),
    st.lists(counts, min_size=len(CATEGORIES), max_size=len(CATEGORIES)),
    counts,
)  # fmt: skip
candidates = st.builds(
    Candidate,
    plan=plans,
    status=st.sampled_from(["chosen", "slower", "struck", "failed", "memory", "untried"]),
    reason=st.text(max_size=20),
    predicted=st.none() | times,
    measured=maybe_seconds,
    startup=maybe_seconds,
    total=maybe_seconds,
    memory_bytes=st.none() | counts,
    verdict=verdicts,
    parity=st.dictionaries(st.text(max_size=5), seconds, max_size=3),
)
refusals = st.builds(
    Refusal,
    knob=st.sampled_from(["precision", "compile", "threads"]),
    value=st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
    reason=st.text(max_size=20),
)
explanations = st.builds(
    Explanation,
    task=st.text(max_size=9),
    device=st.just("cpu"),
    device_name=st.text(max_size=9),
    is_present=st.booleans(),
    plan=plans,
    origin=st.sampled_from(["raced", "predicted", "remembered", "trusted", "given"]),
    num_steps=counts,
    num_examples=counts,
    seconds=st.fixed_dictionaries({"plan": maybe_seconds, "eager": maybe_seconds}),
    planning_seconds=seconds,
    verdict=verdicts,
    budget=st.none() | counts,
    memory=st.none() | memories,
    needed=st.none() | counts,
    time=st.none() | times,
    measured=maybe_seconds,
    actual=st.none()
    | st.fixed_dictionaries(
        {"step": seconds, "memory": st.dictionaries(st.text(max_size=3), counts)}
    ),
    candidates=st.lists(candidates, max_size=3).map(tuple),
    refused=st.lists(refusals, max_size=3).map(tuple),
    notices=st.lists(st.text(max_size=9), max_size=2).map(tuple),
)


@given(explanations)
def test_there_and_back(explanation):
    text = json.dumps(explanation.to_json())
    assert Explanation.from_json(json.loads(text)) == explanation


def test_what_programs_read():
    value = make_explanation().to_json()
    assert value["plan"] == CHOSEN.to_json()
    assert value["memory"]["activations"] == 380 * 2**20
    first = value["candidates"][0]
    assert first["measured_seconds"] == 0.0384
    assert first["predicted_seconds"] == 0.0412
    assert first["semantics"] == "precision"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Explanation)])
def test_not_whole(name):
    value = make_explanation().to_json()
    del value[name]
    optional = name in ("needed", "actual", "network")
    if optional:
        assert Explanation.from_json(value) == make_explanation()
    else:
        with pytest.raises(PlanError):
            Explanation.from_json(value)


@pytest.mark.parametrize("value", [None, [], {}, {"schema_version": 2}, {"schema_version": 1}])
def test_of_another_kind(value):
    with pytest.raises(PlanError):
        Explanation.from_json(value)


def test_levers_in_words():
    candidate = make_explanation().candidates[0]
    assert candidate.changes_text(candidate.plan) == "plain eager"
    assert "bf16" in candidate.changes_text(Plan.baseline("cpu"))


def test_a_notebook_shows_the_plan_and_its_candidates():
    found = make_explanation()
    lines = repr(found).splitlines()
    assert lines[0].startswith("Plan of ")
    assert len(lines) == 1 + len(found.candidates) + len(found.notices)
    assert any("rejected: " in line for line in lines)
    assert max(map(len, lines)) < 400
