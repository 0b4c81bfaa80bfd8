"""Runs a whole script under a plan: a given one, the remembered one, or none.

One line on standard error says what is done; everything else is the script's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.record.format import for_terminal
from volano.script.main_program import after_import, run_as_main
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, may_be_remembered, remembered
from volano.terminal import unfailing

# Set in the process that a failed plan has started again: why.
_FAILED = "VOLANO_PLAN_FAILED"
_LONGEST_REASON = 200  # columns; messages of compilers have pages


def run_script(
    script: Script,
    *,
    plan: ScriptPlan | None = None,
    find: Callable[[Script], ScriptPlan | None] | None = None,
    is_plain: bool = False,
) -> None:
    """Runs a script in this process, to its own end: what it raises and how it exits is the
    caller's to hand on.

    If a plan fails before the first finished step, the process starts again without it, and this
    call does not return.

    Args:
        script: the script with its arguments.
        plan: the plan to take; None takes the remembered one.
        find: a function that finds a plan if none is remembered; None runs plainly.
        is_plain: whether the script runs as it is, whatever is remembered.

    Raises:
        UsageError: there is no such script.
        PlanError: the given plan cannot be applied on this machine.
    """
    reason = os.environ.pop(_FAILED, None)
    running = _Running(script)
    if reason is not None:
        _say(f"{script.words} starts again as it is: the plan failed before a step: {reason}")
    elif is_plain:
        _say(f"{script.words} runs as it is")
    elif plan is not None:
        running.plan_at_import(lambda: plan)
    elif _spans_machines():
        # Each machine remembers for itself, and all ranks must train under one plan.
        _say(f"{script.words} runs as it is: ranks on several machines take --plan FILE")
    elif may_be_remembered(script):
        running.plan_at_import(lambda: remembered(script))
    elif find is not None and (found := find(script)) is not None:
        running.plan_at_import(lambda: found)
    else:
        hint = f"volano explain {script.words}"
        _say(f"{script.words} runs as it is, for no plan is known; to find one: {hint}")
    running.run()


class _Running:
    """A run of a script, which torch's import may put under a plan."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._context = contextlib.ExitStack()
        self._applied: Any = None
        self._is_waiting = False
        self._started_in = Path.cwd()  # the script may change it

    def plan_at_import(self, plan_of: Callable[[], ScriptPlan | None]) -> None:
        """Applies a plan as soon as the script has imported torch: it may set variables of the
        environment before, which torch reads then."""
        self._is_waiting = True
        after_import("torch", lambda: self._apply(plan_of))

    def run(self) -> None:
        """Runs the script."""
        try:
            run_as_main(self._script)
        except Exception as error:
            if self._is_of_plan():
                self._start_again(error)
            raise
        finally:
            if self._is_waiting:
                _say(f"{self._script.words} has not imported torch: nothing to plan")

    def _apply(self, plan_of: Callable[[], ScriptPlan | None]) -> None:
        words, self._is_waiting = self._script.words, False
        try:
            from volano.script.apply import applied

            plan = plan_of()
            if plan is None:
                _say(f"{words} runs as it is: its plan was found for another machine")
                return
            self._applied = self._context.enter_context(applied(plan))
        except Exception as error:  # noqa: BLE001 - no reason for the script not to run
            _say(f"{words} runs as it is: {error}")
            return
        _say(f"{words} runs with {plan.in_words()}; without: --no-plan")

    def _is_of_plan(self) -> bool:
        """Checks whether a failure may be the plan's, and nothing is lost by starting again."""
        applied = self._applied
        if applied is None or not applied.deeds or applied.has_finished_step:
            return False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # other ranks would wait for this one
            _say(f"{self._script.words} has failed before a step; without the plan: --no-plan")
            return False
        return True

    def _start_again(self, error: Exception) -> None:
        self._context.close()  # ends the loaders' workers
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_REASON]
        os.environ[_FAILED] = for_terminal(reason)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with contextlib.suppress(OSError):
            os.chdir(self._started_in)
        # The same command line, with its options of the interpreter.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _spans_machines() -> bool:
    world, local = os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE")
    return local is not None and world != local


def _say(line: str) -> None:
    """Prints a line on standard error, of several ranks once."""
    if os.environ.get("RANK", "0") == "0":
        print(f"volano: {for_terminal(line)}", file=unfailing(sys.stderr), flush=True)
