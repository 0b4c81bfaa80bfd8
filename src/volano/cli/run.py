"""The command ``volano run``: a script of somebody's own, under a plan.

It begins before anything of the command line is set up: streams, signals and exit code are the
script's. Nothing is imported that the script may do without, which costs time, and whose name a
file beside the script may have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from volano.errors import UsageError, VolanoError
from volano.script.main_program import NoSuchModuleError
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script
from volano.script.run import check_seconds, run_script

_FLAGS = ("--plan", "--no-plan", "--find")


class RunWords(NamedTuple):
    """The words of a command line: the script, the plan's file, whether it runs as it is, and for
    how long a plan is looked for."""

    script: Script
    plan: str | None = None
    is_plain: bool = False
    seconds: float | None = None


def options_in(words: RunWords) -> dict[str, Any]:
    """Returns the arguments of :func:`run_script`.

    Raises:
        VolanoError: the words cannot be meant together, or the plan cannot be read.
    """
    given = [words.plan is not None, words.is_plain, words.seconds is not None]
    if sum(given) > 1:
        raise UsageError("One of `plan`, `no_plan` and `find` must be given", got=f"{sum(given)}")
    if words.seconds is not None:
        check_seconds("find", words.seconds)

    def find(script: Script, say: Callable[[str], Any]) -> ScriptPlan | None:
        from volano.script.search.find import find_first

        return find_first(script, say, seconds=words.seconds)

    plan = None if words.plan is None else ScriptPlan.load(Path(words.plan))
    return {"plan": plan, "is_plain": words.is_plain, "find": find}


def run_early(arguments: list[str]) -> bool:
    """Runs ``volano run ...`` to the script's end. Returns False for anything else, for help, and
    for a command line that is not understood."""
    if arguments[:1] != ["run"]:
        return False
    found = parse_words(arguments[1:])
    if found is None:
        return False
    try:
        options = options_in(found)
        if not found.script.is_module:
            found.script.file()
    except VolanoError as error:
        _end(error)
    for flag in found.script.misplaced(_FLAGS):
        said = f"volano: {flag} stands behind {found.script.words}, whose own it is"
        print(f"{said}: Volano's options stand before it", file=sys.stderr)  # noqa: T201 - early
    try:
        run_script(found.script, **options)
    except NoSuchModuleError as error:  # any other is the script's own
        _end(error)
    return True


def _end(error: VolanoError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201 - nothing else is set up yet
    sys.exit(error.exit_code)


def parse_words(words: list[str]) -> RunWords | None:
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
