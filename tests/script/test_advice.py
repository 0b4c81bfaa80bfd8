"""What to write into scripts of four hosts."""

from __future__ import annotations

import ast

import pytest

from volano.script.advice import changes_for
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script

PLAN = ScriptPlan(
    num_workers=2, persistent_workers=True, fused=True, memory_format="channels_last",
    precision="bf16", compile="default", threads=2, non_blocking=True, cudnn_benchmark=True,
)  # fmt: skip
PLAIN = """import torch
from torch import nn, optim
from torch.utils.data import DataLoader
device = "cpu"
loader = DataLoader(data, batch_size=64, shuffle=True)
model = Net().to(device)
optimizer = optim.AdamW(model.parameters(), lr=1e-3)
for x, y in loader:
    x, y = x.to(device), y.to(device)
    loss = nn.functional.cross_entropy(model(x), y)
"""
LIGHTNING = """import lightning as L
from torch.utils.data import DataLoader
loader = DataLoader(data, num_workers=workers)
trainer = L.Trainer(max_epochs=3)
trainer.fit(module, loader)
"""
GAN = """import torch
loader = torch.utils.data.DataLoader(data, **options)
critic, maker = Critic(), Maker()
torch.nn.utils.clip_grad_norm_(others.parameters(), 1.0)
first = torch.optim.Adam(list(critic.parameters()) + list(head.parameters()))
second = Lion(maker.parameters())
"""
TRANSFORMERS = """from transformers import Trainer, TrainingArguments
arguments = TrainingArguments(
    "out",
    learning_rate=1e-3,
)
Trainer(model, arguments).train()
"""
ACCELERATE = """import torch, accelerate
accelerator = accelerate.Accelerator()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
"""


def advice(tmp_path, text, plan=PLAN, facts=None):
    (tmp_path / "train.py").write_text(text)
    found = changes_for(plan, Script(target=str(tmp_path / "train.py")), facts)
    lines = [
        line[1:] for line in found.diff.splitlines() if line.startswith("+") and line[1] != "+"
    ]
    said = {(change.line, change.code): change for change in found.changes}
    return said, lines


def test_a_plain_loop(tmp_path):
    said, lines = advice(tmp_path, PLAIN)
    assert lines == [
        "loader = DataLoader(data, batch_size=64, shuffle=True, num_workers=2, "
        "persistent_workers=True)",
        "model = Net().to(device, memory_format=torch.channels_last)",
        "optimizer = optim.AdamW(model.parameters(), lr=1e-3, fused=True)",
        "    x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)",
    ]
    noted = {key for key, change in said.items() if not change.is_literal}
    assert noted == {
        (7, "model = torch.compile(model)"),
        (
            10,
            "with torch.autocast(torch.device(device).type, dtype=torch.bfloat16): around "
            "model(...), .float() behind what it returns",
        ),
        (0, "torch.set_num_threads(2), at the start"),
        (0, "torch.backends.cudnn.benchmark = True, at the start"),
    }
    assert {name for change in said.values() for name in change.settings} == {*PLAN.settings()}


def test_lightning_is_told_by_its_trainer_and_variables_in_words(tmp_path):
    said, lines = advice(tmp_path, LIGHTNING)
    assert lines == ["trainer = L.Trainer(max_epochs=3, precision='bf16-mixed', benchmark=True)"]
    loader = said[3, "DataLoader(..., num_workers=2, persistent_workers=True)"]
    assert not loader.is_literal
    assert loader.in_words().startswith("train.py:3  DataLoader(")


def test_every_model_is_named_and_a_dictionary_of_arguments_is_left_to_the_person(tmp_path):
    plan = ScriptPlan(num_workers=1, memory_format="channels_last")
    said, lines = advice(tmp_path, GAN, plan)
    assert lines == []
    assert said.keys() == {
        (2, "torch.utils.data.DataLoader(..., num_workers=1)"),
        (5, "critic = critic.to(memory_format=torch.channels_last)"),
        (5, "head = head.to(memory_format=torch.channels_last)"),
        (6, "maker = maker.to(memory_format=torch.channels_last)"),
    }


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        (LIGHTNING, 5, "module = module.to(memory_format=torch.channels_last)"),
        (LIGHTNING.replace("module, loader", "model=Net()"), 5,
         "Net().to(memory_format=torch.channels_last)"),
        (TRANSFORMERS, 6, "model = model.to(memory_format=torch.channels_last)"),
    ],
)  # fmt: skip
def test_a_model_is_named_where_its_host_takes_it(tmp_path, text, line, code):
    own = "import torch\nclass Own:\n    def of(self): return torch.optim.SGD(self.parameters())\n"
    said, _ = advice(tmp_path, text + own, ScriptPlan(memory_format="channels_last"))
    assert [*said] == [(line, code)]


def test_files_are_named_from_where_the_person_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(PLAIN)
    found = changes_for(ScriptPlan(fused=True), Script(target="code/train.py"))
    assert found.changes[0].in_words().startswith("code/train.py:7  ")
    assert found.diff.startswith("--- a/code/train.py\n+++ b/code/train.py\n")


def test_transformers_is_told_by_its_arguments(tmp_path):
    said, lines = advice(tmp_path, TRANSFORMERS)
    assert len(lines) == 1
    for word in ("bf16=True", "optim='adamw_torch_fused'", "dataloader_num_workers=2,"):
        assert word in lines[0]
    assert said.keys() >= {(0, "torch.set_num_threads(2), at the start")}


def test_accelerate_is_told_by_its_accelerator(tmp_path):
    said, lines = advice(tmp_path, ACCELERATE)
    assert lines == [
        "accelerator = accelerate.Accelerator(mixed_precision='bf16', dynamo_backend='inductor')",
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)",
    ]
    assert (0, "num_workers=2, persistent_workers=True, where the loaders are made") in said


def test_what_is_set_before_python_starts_is_told_as_such(tmp_path):
    plan = ScriptPlan(allocator="keep", spin_count=10_000)
    said, lines = advice(tmp_path, PLAIN, plan)
    variables = ["MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647", "GOMP_SPINCOUNT=10000"]
    assert list(said) == [(0, f"{names} in the environment of python") for names in variables]
    assert not lines


def test_an_empty_plan_has_nothing_to_say(tmp_path):
    assert advice(tmp_path, PLAIN, ScriptPlan()) == ({}, [])


def test_the_files_stay_and_those_beside_are_looked_into(tmp_path):
    (tmp_path / "parts.py").write_text(PLAIN)
    said, _ = advice(tmp_path, "from parts import loader\n", ScriptPlan(num_workers=1))
    (change,) = said.values()
    assert (change.file, change.line) == ("parts.py", 5)
    assert change.to_json()["settings"] == ["num_workers"]
    assert (tmp_path / "parts.py").read_text() == PLAIN


ENGINE = """import torch
def evaluate(model, x):
    return model(x)
def fit(model, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches:
        model(x).sum().backward()
"""


def test_places_are_named_by_the_file_in_which_they_lie(tmp_path):
    (tmp_path / "engine.py").write_text(ENGINE)
    plan = ScriptPlan(precision="bf16", compile="default", threads=2)
    advice(tmp_path, "from engine import fit\n", plan)
    found = changes_for(plan, Script(target=str(tmp_path / "train.py"))).changes
    places = {change.settings[0]: (change.file, change.line) for change in found}
    assert places == {
        "precision": ("engine.py", 7), "compile": ("engine.py", 5), "threads": ("train.py", 0),
    }  # fmt: skip


@pytest.mark.parametrize("text", [PLAIN, LIGHTNING, TRANSFORMERS, ACCELERATE])
def test_what_comes_out_parses(tmp_path, text):
    from volano.script.advice import _sources, _Writer

    (tmp_path / "train.py").write_text(text)
    sources = _sources(Script(target=str(tmp_path / "train.py")))
    _Writer(PLAN, sources, {}).advice()
    for source in sources:
        ast.parse(source.edited())


CHOSEN = """import torch
from torch.utils.data import DataLoader
first = DataLoader(data, num_workers=4)
second = DataLoader(
    stream, batch_size=8)
third = DataLoader(data, num_workers=0)
optimizer = torch.optim.SGD(model.parameters(), foreach=True)
with torch.no_grad(): model(x)
"""


def test_what_the_script_chose_and_streams_are_left(tmp_path):
    facts = {"streams": [[str(tmp_path / "train.py"), 4]], "device": "cpu:0"}
    plan = ScriptPlan(num_workers=2, pin_memory=True, fused=True, precision="bf16")
    said, lines = advice(tmp_path, CHOSEN, plan, facts)
    assert lines == [
        "first = DataLoader(data, num_workers=4, pin_memory=True)",
        "    stream, batch_size=8, pin_memory=True)",
        "third = DataLoader(data, num_workers=2, pin_memory=True)",
    ]
    assert said.keys() >= {
        (0, "fused=True, to the optimizer"),
        (8, 'with torch.autocast("cpu", dtype=torch.bfloat16): around model(...), .float() behind '
            "what it returns"),
    }  # fmt: skip


def test_a_loader_without_workers_takes_no_prefetch(tmp_path):
    _, lines = advice(tmp_path, CHOSEN, ScriptPlan(prefetch_factor=4))
    assert lines == ["first = DataLoader(data, num_workers=4, prefetch_factor=4)"]
