"""The command ``volano run``: a script of somebody's own, under a plan.

It begins before anything of the command line is set up: streams, signals and exit code are the
script's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from volano.errors import VolanoError
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script
from volano.script.run import run_script

RUN_HELP = """Run a PyTorch script as python would, under the plan that was found for it.

volano run train.py --epochs 3

volano run --plan plan.json -m my_package.train

torchrun --nproc-per-node 2 -m volano run train.py

Options of volano stand before the script; all that follows is the script's. So are the exit code
and the output, but for one line on standard error.
"""


def run_command(
    script: Annotated[str, typer.Argument(metavar="SCRIPT.py", help="The script, or a module.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Its own arguments.")
    ] = None,
    is_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    plan: Annotated[Path | None, typer.Option(help="Take the plan of this file.")] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Run it as it is.")] = False,
) -> int:
    """Runs a script; only mistakes and a call from Python come this way, see :func:`run_early`."""
    target = Script(target=script, is_module=is_module, arguments=tuple(arguments or ()))
    run_script(target, plan=None if plan is None else ScriptPlan.load(plan), is_plain=no_plan)
    return 0


def run_early(arguments: list[str]) -> bool:
    """Runs ``volano run ...`` to the script's end. Returns False for anything else, for help, and
    for a command line that is not understood."""
    if arguments[:1] != ["run"]:
        return False
    found = parsed(arguments[1:])
    if found is None:
        return False
    script, plan, is_plain = found
    try:
        chosen = None if plan is None else ScriptPlan.load(Path(plan))
        if not script.is_module:
            script.file()
    except VolanoError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - nothing else is set up yet
        sys.exit(error.exit_code)
    run_script(script, plan=chosen, is_plain=is_plain)
    return True


def parsed(words: list[str]) -> tuple[Script, str | None, bool] | None:
    """Returns the script, the plan's file and whether it runs as it is; None if the words are not
    understood."""
    plan, is_module, is_plain = None, False, False
    waiting = list(words)
    while waiting and waiting[0].startswith("-"):
        word = waiting.pop(0)
        name, separator, value = word.partition("=")
        if word == "-m":
            is_module = True
        elif word == "--no-plan":
            is_plain = True
        elif name == "--plan" and (separator or waiting):
            plan = value if separator else waiting.pop(0)
        else:
            return None
    if not waiting or (plan is not None and is_plain):
        return None
    return Script(target=waiting[0], is_module=is_module, arguments=(*waiting[1:],)), plan, is_plain
