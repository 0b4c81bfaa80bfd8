"""Keyword arguments for the libraries that run loops: the real ones take them."""

from __future__ import annotations

import inspect

import pytest

from volano.script.plan import ScriptPlan

PLAN = ScriptPlan(
    num_workers=2, persistent_workers=True, precision="bf16", fused=True, compile="default",
    memory_format="channels_last", cudnn_benchmark=True, threads=2,
)  # fmt: skip


def test_each_host_is_told_what_it_has_arguments_for():
    assert PLAN.for_lightning() == {"precision": "bf16-mixed", "benchmark": True}
    assert PLAN.for_accelerate() == {"mixed_precision": "bf16", "dynamo_backend": "inductor"}
    assert PLAN.for_transformers() == {
        "dataloader_num_workers": 2, "dataloader_persistent_workers": True, "bf16": True,
        "optim": "adamw_torch_fused", "torch_compile": True,
    }  # fmt: skip
    assert PLAN.for_loader() == {"num_workers": 2, "persistent_workers": True}
    assert ScriptPlan(precision="tf32").for_transformers() == {"tf32": True}
    assert ScriptPlan(precision="tf32").for_lightning() == {}
    assert ScriptPlan().for_transformers() == {}


@pytest.mark.usefixtures("environment_kept")
@pytest.mark.filterwarnings("ignore")
def test_the_hosts_have_these_arguments():
    import accelerate
    import lightning
    import transformers

    for kind, arguments in (
        (lightning.Trainer, PLAN.for_lightning()),
        (transformers.TrainingArguments, PLAN.for_transformers()),
        (accelerate.Accelerator, PLAN.for_accelerate()),
    ):
        assert arguments.keys() <= inspect.signature(kind).parameters.keys()
