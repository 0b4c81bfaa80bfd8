"""A script's plan as a value: its checks and its file."""

from __future__ import annotations

import json

import pytest

from volano.errors import PlanError
from volano.script.plan import ScriptPlan

EVERYTHING = ScriptPlan(
    num_workers=2, pin_memory=True, prefetch_factor=4, persistent_workers=True, precision="bf16",
    memory_format="channels_last", fused=True, compile="default", threads=2, cudnn_benchmark=True,
    non_blocking=True,
)  # fmt: skip


@pytest.mark.parametrize("plan", [ScriptPlan(), ScriptPlan(num_workers=0), EVERYTHING])
def test_a_plan_is_read_as_it_was_written(plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    assert ScriptPlan.load(tmp_path / "plan.json") == plan


def test_settings_and_words_name_what_is_set_and_nothing_else():
    plan = ScriptPlan(num_workers=0, precision="bf16")
    assert plan.settings() == {"num_workers": 0, "precision": "bf16"}
    assert plan.in_words() == "num_workers=0, bf16"
    assert ScriptPlan().is_empty
    assert not plan.is_empty
    assert ScriptPlan().in_words() == "as it is"


def test_the_widest_class_is_the_plans():
    assert ScriptPlan().semantics() == "exact"
    assert ScriptPlan(num_workers=2, pin_memory=True).semantics() == "exact"
    assert ScriptPlan(num_workers=2, fused=True).semantics() == "rounding"
    assert EVERYTHING.semantics() == "precision"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": True}, "num_workers"),
        ({"num_workers": 10**9}, "num_workers"),
        ({"num_workers": 2.0}, "num_workers"),
        ({"prefetch_factor": 0}, "prefetch_factor"),
        ({"threads": 0}, "threads"),
        ({"pin_memory": 1}, "pin_memory"),
        ({"precision": "fp8"}, "precision"),
        ({"precision": ["bf16"]}, "precision"),
        ({"compile": "__import__('os')"}, "compile"),
        ({"fused": "yes"}, "fused"),
        ({"batch_size": 64}, "batch_size"),
    ],
)
def test_what_a_stranger_wrote_is_checked(settings, name):
    with pytest.raises(PlanError, match=name):
        ScriptPlan.from_json({"schema_version": 1, **settings})


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"schema_version": true}', "[" * 10**5])
def test_a_file_that_is_no_plan_is_an_error_in_words(text, tmp_path):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanError):
        ScriptPlan.load(tmp_path / "plan.json")


def test_the_file_is_plain_json(tmp_path):
    ScriptPlan(num_workers=2).save(tmp_path / "plan.json")
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written == {"schema_version": 1, "num_workers": 2}


def test_ranks_share_the_cores_of_a_machine():
    plan = ScriptPlan(num_workers=2, persistent_workers=True, threads=1, fused=True)
    assert plan.for_ranks(2, 4) == ScriptPlan(fused=True)
    assert plan.for_ranks(2, 6) == ScriptPlan(num_workers=2, persistent_workers=True, fused=True)
