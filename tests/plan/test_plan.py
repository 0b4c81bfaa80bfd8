import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano import Plan
from volano.errors import PlanError
from volano.plan import SEMANTICS, knobs_with, semantics_of, varies

PLANS = st.builds(
    Plan,
    device=st.sampled_from(["cpu", "xpu:1"]),
    precision=st.sampled_from(["fp32", "tf32", "bf16", "fp16"]),
    memory_format=st.sampled_from(["contiguous", "channels_last"]),
    compile=st.booleans(),
    compile_mode=st.sampled_from(["whole", "blocks", "max-autotune"]),
    conv_benchmark=st.booleans(),
    micro_batch=st.none() | st.integers(1, 10**6),
    recompute=st.sampled_from(["none", "blocks"]),
    activation_budget=st.floats(0, 1),
    offload=st.sampled_from(["none", "activations", "optimizer", "all"]),
    optimizer=st.sampled_from(["as_given", "foreach", "fused"]),
    feed=st.sampled_from(["resident", "ring"]),
    workers=st.integers(0, 64),
    prefetch=st.integers(1, 64),
    threads=st.none() | st.integers(1, 256),
    allocator=st.sampled_from(["system", "keep"]),
    prefix=st.sampled_from(["computed", "cached"]),
)


@given(PLANS)
def test_json_and_back(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(PLANS)
def test_the_widest_class_wins(plan):
    changed = list(plan.changes(Plan.baseline(plan.device)))
    expected = max((semantics_of(name) for name in changed), key=SEMANTICS.index, default="exact")
    assert plan.semantics() == expected


def test_every_knob_has_a_class():
    assert {semantics_of(knob.name) for knob in dataclasses.fields(Plan)} == set(SEMANTICS)


def test_the_default_never_narrows_precision():
    assert Plan.baseline().semantics() == "exact"
    assert Plan.default("cpu").semantics() == "rounding"


def test_saved_and_loaded(tmp_path):
    plan = Plan.default("cpu").pin(precision="bf16", micro_batch=8)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema versions 2 to 6; got 99"),
        ({"tile": 3}, r"must name every knob once; got missing \[\], unknown \['tile'\]"),
        ({"precision": "fp8"}, "`precision` must be one of fp32, tf32, bf16, fp16; got 'fp8'"),
        ({"feed": [1]}, r"`feed` must be one of .*; got \[1\]"),
        ({"micro_batch": 0}, "`micro_batch` must be a whole number, at least 1; got 0"),
        ({"workers": -1}, "`workers` must be a whole number, at least 0"),
        (
            {"activation_budget": 1.5},
            "`activation_budget` must be a share of the activations, 0 to 1; got 1.5",
        ),
        (
            {"offload": "disk"},
            "`offload` must be one of none, activations, optimizer, all; got 'disk'",
        ),
        ({"compile": 1}, "`compile` must be one of False, True; got 1"),
    ],
)
def test_a_wrong_plan_is_refused(change, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json({**Plan.baseline().to_json(), **change})


def test_a_plan_of_an_earlier_version_means_what_it_meant():
    brought = ("recompute", "activation_budget", "offload", "prefix", "graph", "compile_mode")
    brought += ("conv_benchmark", "deterministic")
    old = {n: value for n, value in Plan.baseline().to_json().items() if n not in brought}
    assert Plan.from_json({**old, "schema_version": 2}) == Plan.baseline()
    missing = r"missing \['activation_budget', 'compile_mode', 'conv_benchmark', 'deterministic', "
    with pytest.raises(PlanError, match=missing):
        Plan.from_json(old)


def test_a_plan_that_compiled_before_there_were_modes_compiles_the_whole():
    old = Plan.baseline().pin(compile=True).to_json() | {"schema_version": 4}
    del old["compile_mode"], old["conv_benchmark"], old["deterministic"]
    assert Plan.from_json(old) == Plan(compile=True, compile_mode="whole")


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    with pytest.raises(PlanError, match="must be readable"):
        Plan.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(PlanError, match="must hold JSON"):
        Plan.load(tmp_path / "bad.json")
    with pytest.raises(PlanError, match="knob must be one of"):
        Plan.baseline().pin(turbo=True)


@pytest.mark.parametrize(
    "knobs", [{"conv_benchmark": True}, {"graph": True}, {"compile_mode": "max-autotune"}]
)
def test_a_deterministic_plan_has_no_knob_that_varies(knobs):
    (name, value), *_ = knobs.items()
    assert varies(name, value)
    with pytest.raises(PlanError, match=f"without knobs under which .* got {name}={value!r}"):
        Plan(deterministic=True, **knobs)


def test_a_deterministic_plan_is_compared_with_plain_eager_that_is_deterministic_too():
    plan = Plan(device="xpu:1", deterministic=True)
    assert plan.semantics() == "exact"
    assert plan.plain == plan
    assert plan.pin(precision="bf16").plain == plan
    assert plan.changes(Plan.baseline("xpu:1")).keys() == {"deterministic"}
    assert not varies("threads", None)


class TestDeclarations:
    def test_knobs_are_found_by_what_is_declared_of_them(self):
        assert knobs_with("fits_memory") == ("micro_batch", "recompute", "offload", "allocator")
        assert knobs_with("raced") == (
            "allocator",
            "optimizer",
            "memory_format",
            "precision",
            "compile",
            "threads",
            "prefix",
            "graph",
            "compile_mode",
            "conv_benchmark",
        )
        assert knobs_with("suspicion")[:3] == ("compile", "activation_budget", "recompute")
        assert {"device", "threads", "sharding"} & set(knobs_with("is_captured")) == set()

    def test_turns_are_each_taken_once(self):
        for name in ("raced", "suspicion"):
            turns = [knob.metadata[name] for knob in dataclasses.fields(Plan)]
            turns = [turn for turn in turns if turn]
            assert sorted(turns) == list(range(1, len(turns) + 1))

    def test_whoever_sets_a_knob_is_told_of_it(self):
        assert {"precision", "compile", "micro_batch", "threads", "sharding"} <= set(
            knobs_with("help")
        )
        assert "prefetch" not in knobs_with("help")
