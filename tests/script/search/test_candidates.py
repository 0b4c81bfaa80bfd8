"""Which plans are tried for which script."""

from __future__ import annotations

import dataclasses

import pytest

from volano.script.plan import ScriptPlan
from volano.script.search import candidates
from volano.script.search.candidates import candidates_for, other_threads
from volano.script.search.explanation import ScriptExplanation, StepPart

SLOW = {
    "num_workers": 0, "pin_memory": False, "prefetch_factor": None, "persistent_workers": False,
}  # fmt: skip
PLAIN = {
    "dtype": "float32", "autocast": None, "is_compiled": False, "has_convolutions": True,
    "is_channels_last": False, "threads": 2, "loaders": [SLOW],
    "optimizers": [{"class": "AdamW", "fused": False, "takes_fused": True}],
}  # fmt: skip


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(candidates, "_cores", lambda: 2)


def make(facts=PLAIN, device="cpu", **shares):
    parts = [StepPart(name=n, seconds=s, share=s, places=()) for n, s in shares.items()]
    return ScriptExplanation(
        script="train.py", arguments=(), device=device, num_steps=9, num_warmup_steps=3,
        step_seconds=1.0, split_step_seconds=1.0, parts=tuple(parts), facts=facts,
    )  # fmt: skip


def tried(explanation, precisions=("bf16",), seconds=60.0):
    found = candidates_for(explanation, precisions, seconds)
    return [candidate.plan.in_words() for candidate in found.tried], dict(found.refused)


def test_the_longest_part_comes_first():
    plans, refused = tried(make(data=0.5, forward=0.2, backward=0.2, optimizer=0.1))
    # One worker has a core of its own; two leave none to the arithmetic, whatever its threads.
    some = ScriptPlan(num_workers=1, persistent_workers=True, threads=1)
    more = ScriptPlan(num_workers=2, persistent_workers=True)
    assert plans[:2] == [some.in_words(), more.in_words()]
    assert plans[2:] == ["bf16", "channels_last", "fused=True"]
    assert "seconds" in refused["torch.compile"]


def test_what_one_worker_cannot_hide_is_tried_with_more_first():
    plans, _ = tried(make(data=0.86, forward=0.04, backward=0.09))
    assert plans[0] == ScriptPlan(num_workers=2, persistent_workers=True).in_words()


def test_memory_is_kept_where_the_kernel_takes_part(monkeypatch):
    monkeypatch.setattr(candidates, "can_keep_freed_memory", lambda: True)
    busy = dataclasses.replace(make(forward=0.4), kernel_cores=0.3)
    assert tried(busy)[0][0] == "allocator=keep"
    idle = dataclasses.replace(busy, kernel_cores=0.01)
    assert tried(idle)[1]["allocator"] == "the kernel takes part in 1.0% of a step"
    on_device = dataclasses.replace(busy, device="meta")
    assert "allocator" not in " ".join(tried(on_device)[0])


def test_what_is_short_is_not_tried():
    plans, refused = tried(make(data=0.01, forward=0.02, optimizer=0.02, rest=0.95))
    assert plans == []
    assert refused["data workers"] == "waiting for data and copying are 1.0% of a step"
    assert refused["fused optimizer"] == "the optimizer is 2.0% of a step"


def test_what_the_script_does_itself_is_left():
    own = {
        "autocast": "bfloat16", "is_compiled": True, "is_channels_last": True,
        "loaders": [{**SLOW, "num_workers": 4, "prefetch_factor": 2}],
        "optimizers": [{"class": "AdamW", "fused": True, "takes_fused": True}],
    }  # fmt: skip
    plans, refused = tried(make({**PLAIN, **own}, data=0.3, forward=0.5, optimizer=0.2))
    assert plans == ["prefetch_factor=4"]
    assert refused["precision"] == "the script computes in bfloat16"
    assert {"data workers", "channels_last", "torch.compile", "fused optimizer"} <= refused.keys()


def test_a_device_and_more_time_have_more_candidates():
    shares = {"data": 0.1, "transfer": 0.2, "forward": 0.5}
    plans, _ = tried(make(device="meta", **shares), ("tf32", "bf16"), seconds=300)
    wanted = {"pin_memory=True, non_blocking=True", "tf32", "bf16", "cudnn.benchmark=True"}
    assert wanted < set(plans)
    assert any("compile" in plan for plan in plans)


def test_another_number_of_threads():
    assert [other_threads({"threads": n}) for n in (1, 2, 8)] == [2, 1, 4]


def test_what_can_only_be_iterated_over_and_models_in_evaluation_mode_are_left():
    facts = {**PLAIN, "loaders": [{**SLOW, "is_stream": True}], "is_training": False}
    plans, refused = tried(make(facts, data=0.5, forward=0.4, optimizer=0.1), seconds=600)
    assert plans == ["fused=True"]
    assert refused["data workers"].startswith("several would each give all")
    assert "evaluation mode" in refused["precision, memory format"]
    assert "evaluation mode" in refused["torch.compile"]
    counting = {**PLAIN, "loaders": [{**SLOW, "counts_reads": True}]}
    assert "changes itself" in tried(make(counting, data=0.9))[1]["data workers"]
