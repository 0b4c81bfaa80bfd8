"""The command ``volano run``: a script of somebody's own, under a plan.

It begins before anything of the command line is set up: streams, signals and exit code are the
script's.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from volano.errors import UsageError, VolanoError
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script
from volano.script.run import run_script

RUN_HELP = """Run a PyTorch script as python would, under the plan that was found for it.

volano run train.py --epochs 3

volano run --find 60 train.py             if no plan is known, one is sought for a minute first

volano run --plan plan.json -m my_package.train

torchrun --nproc-per-node 2 -m volano run train.py

Options of volano stand before the script; all that follows is the script's. So are the exit code
and the output, but for a line on standard error. Of a script that took long before, a plan is
sought first, in at most a twentieth of that time.
"""


class RunWords(NamedTuple):
    """The words of a command line: the script, the plan's file, whether it runs as it is, and for
    how long a plan is sought."""

    script: Script
    plan: str | None = None
    is_plain: bool = False
    seconds: float | None = None


def run_command(
    script: Annotated[str, typer.Argument(metavar="SCRIPT.py", help="The script, or a module.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Its own arguments.")
    ] = None,
    is_module: Annotated[bool, typer.Option("-m", help="SCRIPT is the name of a module.")] = False,
    plan: Annotated[Path | None, typer.Option(help="Take the plan of this file.")] = None,
    no_plan: Annotated[bool, typer.Option("--no-plan", help="Run it as it is.")] = False,
    find: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="If no plan is known, look for one first, so long."),
    ] = None,
) -> int:
    """Runs a script; only mistakes and a call from Python come this way, see :func:`run_early`."""
    target = Script(target=script, is_module=is_module, arguments=tuple(arguments or ()))
    words = RunWords(target, None if plan is None else str(plan), no_plan, find)
    run_script(target, **_options(words))
    return 0


def _options(words: RunWords) -> dict[str, Any]:
    """Returns the arguments of :func:`run_script`.

    Raises:
        VolanoError: the words cannot be meant together, or the plan cannot be read.
    """
    given = [words.plan is not None, words.is_plain, words.seconds is not None]
    if sum(given) > 1:
        raise UsageError("One of `plan`, `no_plan` and `find` must be given", got=f"{sum(given)}")
    if words.seconds is not None and not 0 < words.seconds < float("inf"):
        raise UsageError("`find` must be a number of seconds above 0", got=words.seconds)
    from volano.script.search.find import find_first

    return {
        "plan": None if words.plan is None else ScriptPlan.load(Path(words.plan)),
        "is_plain": words.is_plain,
        "find": functools.partial(find_first, seconds=words.seconds),
    }


def run_early(arguments: list[str]) -> bool:
    """Runs ``volano run ...`` to the script's end. Returns False for anything else, for help, and
    for a command line that is not understood."""
    if arguments[:1] != ["run"]:
        return False
    found = parsed(arguments[1:])
    if found is None:
        return False
    try:
        options = _options(found)
        if not found.script.is_module:
            found.script.file()
    except VolanoError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - nothing else is set up yet
        sys.exit(error.exit_code)
    run_script(found.script, **options)
    return True


def parsed(words: list[str]) -> RunWords | None:
    """Returns what a command line says; None if the words are not understood."""
    plan, seconds, is_module, is_plain = None, None, False, False
    waiting = list(words)
    while waiting and waiting[0].startswith("-"):
        word = waiting.pop(0)
        name, separator, value = word.partition("=")
        if word == "-m":
            is_module = True
        elif word == "--no-plan":
            is_plain = True
        elif name in ("--plan", "--find") and (separator or waiting):
            value = value if separator else waiting.pop(0)
            if name == "--plan":
                plan = value
            else:
                try:
                    seconds = float(value)
                except ValueError:
                    return None
        else:
            return None
    if not waiting:
        return None
    script = Script(target=waiting[0], is_module=is_module, arguments=(*waiting[1:],))
    return RunWords(script, plan, is_plain, seconds)
