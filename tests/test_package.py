"""The public door, the house's order, and that importing does nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import volano

SOURCE = Path(volano.__file__).parent


def test_public_names_are_pinned():
    assert sorted(volano.__all__) == [
        "Application", "Arrays", "Device", "Duration", "Explanation", "Finished", "Fitted",
        "ImageOptions", "Loss", "MemoryMapped", "Observer", "Options", "Plan", "Processes", "Run",
        "Safety", "ScriptPlan", "Study", "Table", "Task", "TextOptions", "TrainedModel",
        "VideoOptions", "VolanoError", "__version__", "advise", "bench", "constant", "cosine",
        "doctor", "explain", "explore", "from_lightning", "from_trainer", "linear", "load",
        "open_table", "option", "prepare", "resume", "spool", "train", "trapezoid", "verify",
    ]  # fmt: skip
    for name in volano.__all__:
        assert getattr(volano, name) is not None
    assert dir(volano) == sorted(volano.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        volano.trian  # noqa: B018


def test_no_verb_is_hidden_by_a_folder_of_its_name():
    # Importing volano.NAME would set volano's attribute NAME to the module, whatever stood there.
    folders = {path.stem for path in SOURCE.iterdir()}
    assert not folders & set(volano.__all__)


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_loads_nothing_heavy_and_leaves_no_trace():
    code = """
import json, logging, os, sys, threading, warnings, signal
before = (dict(os.environ), logging.root.level, len(logging.root.handlers),
          threading.active_count(), list(warnings.filters), signal.getsignal(signal.SIGINT))
import volano
after = (dict(os.environ), logging.root.level, len(logging.root.handlers),
         threading.active_count(), list(warnings.filters), signal.getsignal(signal.SIGINT))
print(json.dumps({"same": before == after, "modules": sorted(sys.modules)}))
"""
    result = json.loads(run_python(code))
    assert result["same"]
    heavy = {
        "torch",
        "numpy",
        "sklearn",
        "matplotlib",
        "rich",
        "typer",
        "PIL",
        "safetensors",
        "av",
        "tokenizers",
        "jinja2",
    }
    assert not heavy & set(result["modules"])
    assert [name for name in result["modules"] if name.startswith("volano")] == ["volano"]


def test_a_plan_and_the_errors_need_no_torch():
    code = (
        "import sys; from volano import Plan, VolanoError; Plan.default('cpu'); print('torch' "
        "in sys.modules)"
    )
    assert run_python(code).strip() == "False"


def test_a_task_loads_no_application_and_workers_load_no_cluster():
    code = """
import sys
from volano import Task, train
print([name for name in sys.modules if name.startswith('volano.apps')])
import volano.study.workers.make_executor
print(sorted({'ray', 'optuna'} & set(sys.modules)))
"""
    assert run_python(code).split() == ["[]", "[]"]


def test_no_module_does_heavy_work_at_import():
    code = """
import importlib, pkgutil, sys, threading, os
import volano
environment = dict(os.environ)
for module in pkgutil.walk_packages(volano.__path__, 'volano.'):
    if not module.name.endswith('__main__'):
        importlib.import_module(module.name)
import torch
assert not torch.accelerator.is_available() or not torch.get_device_module().is_initialized()
heavy = {'matplotlib.pyplot', 'sklearn', 'torch._dynamo', 'torch._inductor', 'datasets', 'av',
         'tokenizers'}
print(sorted(heavy & set(sys.modules)), dict(os.environ) == environment, threading.active_count())
"""
    assert run_python(code).split() == ["[]", "True", "1"]


def test_only_the_device_folder_names_a_kind_of_accelerator():
    kinds = re.compile(r"cuda|\bmps\b|\.is_cuda", re.IGNORECASE)
    found = {
        str(path.relative_to(SOURCE)): kinds.findall(path.read_text(encoding="utf-8"))
        for path in SOURCE.rglob("*.py")
        if "device" not in path.relative_to(SOURCE).parts
    }
    assert {name: words for name, words in found.items() if words} == {}


def test_no_folder_is_a_drawer_for_everything():
    forbidden = {"utils", "common", "helpers", "components", "misc"}
    assert not [path for path in SOURCE.rglob("*") if path.stem in forbidden]


def test_help_and_mistakes_load_no_torch():
    calls = {
        "--help": 0, "--version": 0, "train image --help": 0, "explore text --help": 0,
        "generate --help": 0, "train image --siez thin": 2, "train image --size huge": 2,
        "train imagee": 2,
    }  # fmt: skip
    program = f"""
import sys
from volano.cli.main import run
found = {{words: run(words.split()) for words in {list(calls)}}}
print(found, 'torch' in sys.modules)
"""
    assert run_python(program).splitlines()[-1] == f"{calls} False"
