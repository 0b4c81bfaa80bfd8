"""Whole scripts under given, remembered and failing plans."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys

import pytest

from volano.errors import UsageError
from volano.script.lengths import expected_length
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, remember
from volano.script.run import run_script

LOOP = """
import sys, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
data = TensorDataset(torch.randn(64, 4), torch.randint(3, (64,)))
loader = DataLoader(data, batch_size=4, shuffle=True)
net = nn.Linear(4, 3)
optimizer = torch.optim.AdamW(net.parameters())
for x, y in loader:
    if "fails" in sys.argv and optimizer.param_groups[0]["fused"]:
        raise RuntimeError("fused is not for me")
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if "late" in sys.argv:
        raise RuntimeError("too late")
print("workers", loader.num_workers, "fused", optimizer.param_groups[0]["fused"], loss.item())
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script; what a main program changes in its process is put back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.py").write_text(LOOP)
    return Script(target="loop.py")


def outcome(capfd, call):
    call()
    out, err = capfd.readouterr()
    assert err.count("\n") == 1
    return out, err


def test_given_remembered_and_no_plan(script, capfd):
    out, err = outcome(capfd, lambda: run_script(script))
    plain = out.split()
    assert plain[:4] == ["workers", "0", "fused", "None"]
    assert "to find one: volano explain loop.py" in err
    out, err = outcome(capfd, lambda: run_script(script, plan=ScriptPlan(fused=True)))
    assert out.split()[3] == "True"
    assert "loop.py runs with fused=True" in err
    remember(script, ScriptPlan(num_workers=1))
    out, err = outcome(capfd, lambda: run_script(script))
    assert out.split()[:2] == ["workers", "1"]
    assert out.split()[4] == plain[4]  # bitwise
    assert "num_workers=1" in err
    out, err = outcome(capfd, lambda: run_script(script, is_plain=True))
    assert out.split() == plain


def test_how_long_threads_wait_is_known_before_torch_is_loaded(script, capfd, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    plan = ScriptPlan(spin_count=10_000)
    _, said = outcome(capfd, lambda: run_script(script, plan=plan))
    assert "runs with GOMP_SPINCOUNT=10000; without: --no-plan" in said
    assert os.environ.pop("GOMP_SPINCOUNT") == "10000"
    remember(script, plan)
    outcome(capfd, lambda: run_script(script))
    assert os.environ.pop("GOMP_SPINCOUNT") == "10000"
    outcome(capfd, lambda: run_script(script, is_plain=True))
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_plan_is_found_if_there_is_somebody_to_find_it(script, capfd):
    asked = []

    def find(wanted, say):
        asked.append(wanted)
        return ScriptPlan(fused=True)

    out, _ = outcome(capfd, lambda: run_script(script, find=find))
    assert asked == [script]
    assert out.split()[3] == "True"
    assert expected_length(script) is None  # under a plan: not what it takes by itself


def test_how_long_a_script_takes_by_itself_is_noted(script, capfd):
    _, err = outcome(capfd, lambda: run_script(script, find=lambda *_: None))
    assert "for no plan is known" in err
    found = expected_length(script)
    assert found.is_whole
    assert 0 < found.startup_seconds < found.seconds < 60
    stopped = dataclasses.replace(script, arguments=("late",))
    with pytest.raises(RuntimeError):
        run_script(stopped)
    assert not expected_length(stopped).is_whole


def test_nothing_faster_is_said(script, capfd):
    remember(script, ScriptPlan())
    out, err = outcome(capfd, lambda: run_script(script))
    assert err == "volano: loop.py runs as it is: nothing faster was found for it\n"
    assert out.split()[3] == "None"


def test_ranks_of_one_machine_take_what_holds_for_each(script, capfd, monkeypatch):
    remember(script, ScriptPlan(fused=True, threads=1, num_workers=500))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # as torchrun sets it
    out, err = outcome(capfd, lambda: run_script(script))
    assert "runs with fused=True; without" in err
    assert out.split()[:4] == ["workers", "0", "fused", "True"]


def test_ranks_say_it_once_and_several_machines_remember_nothing(script, capfd, monkeypatch):
    remember(script, ScriptPlan(fused=True))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out, err = outcome(capfd, lambda: run_script(script))
    assert "ranks on several machines take --plan FILE" in err
    assert out.split()[3] == "None"
    monkeypatch.setenv("RANK", "1")
    run_script(script)
    assert capfd.readouterr().err == ""


def test_a_plan_for_another_machine_is_said(script, capfd):
    _, err = outcome(capfd, lambda: run_script(script, plan=ScriptPlan(precision="fp16")))
    assert "runs as it is: fp16 needs an accelerator" in err


def test_a_script_without_torch_is_said(script, capfd, tmp_path):
    # Nor does it find anything that a file beside it may be called.
    (tmp_path / "plain.py").write_text(
        "import os, sys; assert not {'typer', 'click', 'rich'} & {*sys.modules}\n"
        "os.fork() or sys.exit()  # says nothing of Volano's\nprint('hello')"
    )
    words = "-m volano run --plan plan.json plain.py"
    ScriptPlan(fused=True).save(tmp_path / "plan.json")
    done = subprocess.run([sys.executable, *words.split()], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert done.stderr == "volano: plain.py has not imported torch: nothing to plan\n"


def test_no_script_is_a_mistake(script):
    with pytest.raises(UsageError, match="no such file"):
        run_script(Script(target="nothing.py"))


def in_process(folder, *words):
    """A process of its own: a plan that failed starts it again."""
    ScriptPlan(fused=True).save(folder / "plan.json")
    words = ["-m", "volano", "run", "--plan", "plan.json", "loop.py", *words]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder)


def test_a_plan_that_fails_before_a_step_is_left_and_said(script, tmp_path):
    done = in_process(tmp_path, "fails")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("workers 0 fused None")
    said = done.stderr.splitlines()
    assert "runs with fused=True" in said[0]
    assert "starts again as it is: the plan failed before a step: RuntimeError: fused" in said[1]
    assert len(said) == 2


def test_after_a_step_a_failure_is_the_scripts(script, capfd, monkeypatch):
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("it was started again"))
    late = Script(target="loop.py", arguments=("late",))
    with pytest.raises(RuntimeError, match="too late"):
        run_script(late, plan=ScriptPlan(fused=True))
    err = capfd.readouterr().err
    assert "runs with fused=True" in err
    assert "again" not in err


def test_the_hooks_of_a_plan_leave_no_line_in_a_traceback(script, capfd, tmp_path):
    text = LOOP.replace("nn.Linear(4, 3)", "Net(4, 3)").replace(
        "torch.manual_seed(0)",
        """
class Net(nn.Linear):
    def forward(self, x):
        try:
            return super().forward(x[:, :len(optimizer.state) or 4])
        except RuntimeError as error:
            raise ValueError("mine") from error
""",
    )
    (tmp_path / "loop.py").write_text(text)
    plan = ScriptPlan(memory_format="channels_last", num_workers=1)
    with pytest.raises(ValueError, match="mine") as raised:
        run_script(script, plan=plan)
    sys.excepthook(raised.type, raised.value, raised.tb)
    shown = capfd.readouterr().err
    assert shown.count('loop.py", line') == 3
    assert "script/" not in shown
    assert "torch/nn/modules/module.py" in shown
    del raised
    gc.collect()  # the plan ends with the last who knows of it


@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_rank_takes_the_plan_and_one_says_it(script, capfd, monkeypatch, rank):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    run_script(script, plan=ScriptPlan(fused=True))
    out, err = capfd.readouterr()
    assert out.split()[3] == "True"
    assert err.count("volano: ") == (rank == "0")


@pytest.mark.slow  # three new interpreters load torch
def test_every_rank_of_torchrun_takes_the_plan(script, tmp_path):
    (tmp_path / "loop.py").write_text(LOOP + "import os; print('rank', os.environ['RANK'])\n")
    ScriptPlan(fused=True).save(tmp_path / "plan.json")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words += ["-m", "volano", "run"]
    done = subprocess.run(
        [sys.executable, *words, "--plan", "plan.json", "loop.py"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fused True") == 2
    assert done.stderr.count("volano: ") == 1
