"""A plan is looked for before a run, if the run is long enough."""

from __future__ import annotations

import json
import sys

import pytest

from volano.errors import ScriptError
from volano.script.lengths import ScriptLength, length_file, note_length
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, remember, remembered
from volano.script.search import find
from volano.script.search.explanation import ScriptExplanation

SCRIPT = Script(target="train.py")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("length", "startup", "seconds"),
    [(60, 3, None), (300, 3, None), (1200, 3, 60), (1200, 30, None), (86400, 3, 300)],
)
def test_a_twentieth_of_the_run_if_that_is_enough(length, startup, seconds):
    known = ScriptLength(seconds=length, startup_seconds=startup)
    assert find.seconds_to_search(known) == seconds


def test_nothing_is_sought_for_a_run_of_unknown_length_unless_it_is_asked_for(monkeypatch):
    asked, lines = [], []
    answer = ScriptPlan(fused=True), "it is late"
    monkeypatch.setattr(find, "_searched", lambda _, seconds: asked.append(seconds) or answer)
    assert find.find_first(SCRIPT, lines.append) is None
    assert asked == lines == []
    assert find.find_first(SCRIPT, lines.append, seconds=7) == answer[0]
    length = ScriptLength(seconds=1200, startup_seconds=3, is_whole=False)
    note_length(length_file(SCRIPT), (), length)
    find.find_first(SCRIPT, lines.append)
    assert asked == [7, 60]
    assert "looked for first, for at most 7 s: as asked for" in lines[0]
    assert lines[1] == "train.py: no plan was found: it is late"
    assert "60 s: it takes at least 20 min 0 s, as an earlier run tells" in lines[2]


def search(folder, monkeypatch, explain):
    monkeypatch.setattr("volano.script.search.explain.explain_script", explain)
    job = folder / "job.json"
    job.write_text(json.dumps({"script": vars(SCRIPT), "seconds": 30}))
    monkeypatch.setattr(sys, "argv", ["find", str(job), str(folder / "result.json")])
    find.main()
    return json.loads((folder / "result.json").read_text())


def test_what_the_process_of_a_search_writes(folder, monkeypatch):
    plan = ScriptPlan(fused=True)

    def explain(script, *, seconds, is_bound):
        assert (script, seconds, is_bound) == (SCRIPT, 25, True)
        remember(script, plan)
        return ScriptExplanation(
            script="train.py", arguments=(), device="cpu", num_steps=9, num_warmup_steps=3,
            step_seconds=1.0, split_step_seconds=1.0, parts=(), chosen=plan,
        )  # fmt: skip

    assert search(folder, monkeypatch, explain) == {"plan": plan.to_json(), "reason": ""}
    assert remembered(SCRIPT) == plan


def test_a_search_that_fails_is_remembered_too(folder, monkeypatch):
    def explain(*_, **__):
        raise ScriptError("train.py must ask for nothing")

    found = search(folder, monkeypatch, explain)
    assert found == {"plan": {"schema_version": 1}, "reason": "train.py must ask for nothing."}
    assert remembered(SCRIPT) == ScriptPlan()


def test_a_search_without_a_result_is_no_plan(folder):
    (folder / "train.py").write_text("import sys\nsys.exit('no')\n")
    plan, reason = find._searched(SCRIPT, 20.0)
    assert plan.is_empty
    assert reason == "train.py must run by itself; got exit code 1: no."


def test_a_script_that_writes_files_here_is_searched_only_if_asked(monkeypatch):
    asked, lines = [], []
    answer = ScriptPlan(), ""
    monkeypatch.setattr(find, "_searched", lambda _, seconds: asked.append(seconds) or answer)
    length = ScriptLength(seconds=1200, startup_seconds=3, written="out/model.pt")
    note_length(length_file(SCRIPT), (), length)
    assert find.find_first(SCRIPT, lines.append) is None
    assert not asked
    assert (
        "no plan is looked for, since its runs write files here, such as out/model.pt" in lines[0]
    )
    find.find_first(SCRIPT, lines.append, seconds=7)
    assert asked == [7]
