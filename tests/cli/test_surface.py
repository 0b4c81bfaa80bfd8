"""The flags of every command, frozen: one that comes or goes is a decision, not an accident."""

from __future__ import annotations

import pytest
import typer

from volano.cli import commands
from volano.cli.main import app, run

SHARED = "--json --debug"
LENGTH = "--minutes --epochs --seed --keep --patience"
PLAN = (
    "--device --precision --memory-format --compile --no-compile --compile-mode --graph --no-graph "
    "--micro-batch --recompute --offload --feed --workers --threads --sharding --conv-benchmark "
    "--no-conv-benchmark --prefix --deterministic --no-deterministic --forbid --budget"
)
RUN = "--out --plan --no-plan --nproc --max-restarts --save-every --skip-bad-steps"
EXPLAIN = "--on --nodes --job --race --no-race --analyze"
STUDY = (
    "--trials --minutes --metric --direction --eta --rungs --seed --storage --out --verify "
    "--nproc --workers --ray --device --precision --space"
)
OWN = {
    "image": (
        "--target --target-columns --from --tune --size --model --image-size --fit --image-cache "
        "--batch-size --flip"
    ),
    "text": "--classify --target --target-columns --from --tune --depth --context --batch-size",
    "video": "--classify --from --network --frames --image-size --fit --fps --batch-size --flip",
}
SURFACE = {
    "bench": "--minutes --device",
    "eval": "--device --code --trust",
    "predict": "--device --csv --top-k --code --trust",
    "export": "--out --to --code --trust",
    "report": "--out",
    "run": "--plan --no-plan --find",
    "doctor": "--device",
    "resume": "--nproc --max-restarts --save-every --skip-bad-steps --code --trust --accept",
    "generate": (
        "--code --trust "
        "--device --seed --prompt --tokens --temperature --top-k --top-p --clips --steps --frames "
        "--first-frames --class --guidance --method --fps --out"
    ),
    "plans list": "",
    "plans show": "",
    "plans clear": "",
    **{f"train {kind}": f"{LENGTH} {own} {PLAN} {RUN}" for kind, own in OWN.items()},
    **{f"explain {kind}": f"{LENGTH} {own} {PLAN} {EXPLAIN}" for kind, own in OWN.items()},
    **{f"explore {kind}": f"{own} {STUDY}" for kind, own in OWN.items()},
}
OF_OWN_TASKS = {
    "train": f"{PLAN} {RUN} --from --trial --epochs --trust",
    "explain": f"{PLAN} {EXPLAIN}",
    "explore": f"{STUDY} --resume --trust".replace(" --space", ""),
}


def flags_of(command):
    names = (name for item in command.params for name in (*item.opts, *item.secondary_opts))
    return {name for name in names if name.startswith("--")}


def commands_of(command, name=""):
    if not hasattr(command, "list_commands"):
        return {name.strip(): flags_of(command)}
    found = {}
    for other in command.list_commands(None):
        found |= commands_of(command.get_command(None, other), f"{name} {other}")
    return found


def test_the_flags_of_every_command():
    commands.register(app)
    found = commands_of(typer.main.get_command(app))
    assert found.keys() == SURFACE.keys()
    for name, flags in SURFACE.items():
        # A script's output is its own.
        shared = () if name == "run" else SHARED.split()
        assert found[name] - {"--help"} == {*flags.split(), *shared}, name


def test_no_help_shows_a_type_for_a_switch(capsys):
    for name in ("", "plans", *SURFACE):
        assert run([*name.split(), "--help"]) == 0
        out = capsys.readouterr().out
        assert "Usage: volano" in out
        assert "<bool>" not in out, name


@pytest.mark.parametrize("verb", OF_OWN_TASKS)
def test_the_flags_for_a_task_of_ones_own(verb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_for_flags.py").write_text("task = None\n")
    commands.register(app)
    group = typer.main.get_command(app).get_command(None, verb)
    found = flags_of(group.get_command(None, "mine_for_flags:task"))
    assert found - {"--help"} == {*OF_OWN_TASKS[verb].split(), *SHARED.split()}


def test_the_flags_for_a_script():
    commands.register(app)
    group = typer.main.get_command(app).get_command(None, "explain")
    found = flags_of(group.get_command(None, "train.py"))
    own = "--seconds --steps --scratch --out --diff --check --verbose"
    assert found - {"--help"} == {*own.split(), *SHARED.split()}
