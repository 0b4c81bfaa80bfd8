"""Six typical scripts that know nothing of Volano: run as they are, and under plans."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import FASHION_MNIST
from volano.script.advice import changes_for
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script

SCRIPTS = Path(__file__).parents[2] / "examples" / "scripts"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
WORKERS = ScriptPlan(num_workers=1, persistent_workers=True)
EVERYTHING = ScriptPlan(
    num_workers=1, persistent_workers=True, fused=True, memory_format="channels_last"
)


def losses_of(folder, words):
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=folder, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return [float(value) for value in re.findall(r"loss'?:? '?([\d.]+)", done.stdout)]


def test_there_are_six_and_they_do_not_know_volano():
    assert len(NAMES) == 6
    for name in NAMES:
        assert "volano" not in (SCRIPTS / f"{name}.py").read_text().lower()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_runs_under_plans_with_its_own_losses(name, tmp_path):
    if name == "tutorial_loop" and not FASHION_MNIST.is_dir():
        pytest.skip(f"no {FASHION_MNIST}")
    script = [str(SCRIPTS / f"{name}.py"), "--small", "--epochs", "2"]
    expected = losses_of(tmp_path, script)
    assert expected
    for plan, tolerance in ((WORKERS, 0), (EVERYTHING, 0.02)):
        plan.save(tmp_path / "plan.json")
        words = ["-m", "volano", "run", "--plan", "plan.json", *script]
        found = losses_of(tmp_path, words)
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance / 10)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_told_what_to_write(name, monkeypatch):
    monkeypatch.chdir(SCRIPTS)  # files are named as seen from the current folder
    advice = changes_for(EVERYTHING, Script(target=str(SCRIPTS / f"{name}.py")))
    said = {setting for change in advice.changes for setting in change.settings}
    assert said == {*EVERYTHING.settings()}
    assert all(change.line for change in advice.changes if change.is_literal)
    assert f"+++ b/{name}.py" in advice.diff
