"""Runs a whole script under a plan: a given one, the remembered one, or none.

One line on standard error says what is done; everything else is the script's.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.record.format import for_terminal
from volano.script.lengths import ScriptLength, length_file, note_length, written_since
from volano.script.main_program import after_import, run_as_main
from volano.script.plan import ScriptPlan
from volano.script.remembered import (
    Script,
    may_be_remembered,
    num_ranks,
    remembered,
    remembered_spin_count,
)
from volano.terminal import unfailing
from volano.thread_waits import environment_as_given, shorten_waits

# Set in the process that a failed plan has started again: why.
_FAILED = "VOLANO_PLAN_FAILED"
_LONGEST_REASON = 200  # columns; messages of compilers have pages
_MOST_SECONDS = 10_000_000  # about what a timer of the system takes


def run_script(
    script: Script,
    *,
    plan: ScriptPlan | None = None,
    find: Callable[[Script, Callable[[str], Any]], ScriptPlan | None] | None = None,
    is_plain: bool = False,
) -> None:
    """Runs a script in this process, to its own end: what it raises and how it exits is the
    caller's to hand on.

    If a plan fails before the first finished step, the process starts again without it, and this
    call does not return.

    Args:
        script: the script with its arguments.
        plan: the plan to take; None takes the remembered one.
        find: a function that finds a plan if none is remembered, and is given one that says a
            line; it returns None if it has not looked for any. None runs plainly.
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
        running.note_length()
        _say(f"{script.words} runs as it is")
    elif plan is not None:
        running.plan_at_import(lambda: plan, plan.spin_count)
    elif num_ranks("LOCAL_WORLD_SIZE", num_ranks()) != num_ranks():
        # Several machines: each remembers for itself, and all ranks must train under one plan.
        _say(f"{script.words} runs as it is: ranks on several machines take --plan FILE")
    elif may_be_remembered(script):
        running.plan_at_import(lambda: remembered(script), remembered_spin_count(script))
    elif find is not None and num_ranks() == 1 and (found := find(script, _say)) is not None:
        running.plan_at_import(lambda: found, found.spin_count)
    else:
        running.note_length()
        hint = f"volano explain {script.words}"
        _say(f"{script.words} runs as it is, for no plan is known; to find one: {hint}")
    running.run()


def check_seconds(name: str, seconds: float) -> None:
    """Raises UsageError unless a plan can be looked for so long."""
    if not 0 < seconds <= _MOST_SECONDS:
        rule = f"`{name}` must be a number of seconds above 0, at most {_MOST_SECONDS:,}"
        raise UsageError(rule, got=seconds)


class _Running:
    """A run of a script, which torch's import may put under a plan."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._context, self._watching = contextlib.ExitStack(), contextlib.ExitStack()
        self._applied: Any = None
        self._is_waiting = False
        self._started_in = _here()  # the script may change it
        self._started, self._process = time.monotonic(), os.getpid()
        self._started_at = time.time()
        self._first_step: float | None = None
        self._length_file: Path | None = None

    def plan_at_import(
        self, plan_of: Callable[[], ScriptPlan | None], spin_count: int | None
    ) -> None:
        """Applies a plan as soon as the script has imported torch: it may set variables of the
        environment before, which torch reads then. How long threads wait is such a variable."""
        if spin_count is not None:
            shorten_waits(spin_count=spin_count)
        self._is_waiting = True
        after_import("torch", lambda: self._apply(plan_of))

    def note_length(self) -> None:
        """Has the length of this run noted at its end: it tells how long a plan may be looked for
        before the next one."""
        self._length_file = length_file(self._script) if num_ranks() == 1 else None
        if self._length_file is not None:
            after_import("torch", self._watch_first_step)

    def run(self) -> None:
        """Runs the script."""
        is_whole = False
        try:
            run_as_main(self._script)
            is_whole = True
        except SystemExit as end:
            is_whole = not end.code
            raise
        except Exception as error:
            if self._is_of_plan():
                self._start_again(error)
            raise
        finally:
            if self._is_own_process():
                if self._is_waiting:
                    _say(f"{self._script.words} has not imported torch: nothing to plan")
                self._end(is_whole)
                for notice in () if self._applied is None else self._applied.notices:
                    _say(notice)

    def _is_own_process(self) -> bool:
        """Checks that this is not a process that the script has forked, which comes by too."""
        return os.getpid() == self._process

    def _watch_first_step(self) -> None:
        from torch.compiler import is_compiling
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def finished(*_: Any) -> None:
            # Taken off at the end: within its own call torch walks over the hooks. A compiler that
            # follows the step sees nothing: the clock would part its graph.
            if not is_compiling() and self._first_step is None:
                self._first_step = time.monotonic()

        self._watching.callback(register_optimizer_step_post_hook(finished).remove)

    def _end(self, is_whole: bool) -> None:
        self._watching.close()
        if self._length_file is None or self._first_step is None:
            return
        length = ScriptLength(
            seconds=time.monotonic() - self._started,
            startup_seconds=self._first_step - self._started,
            is_whole=is_whole,
            written=written_since(self._started_in, self._started_at),
        )
        note_length(self._length_file, self._script.arguments, length)

    def _apply(self, plan_of: Callable[[], ScriptPlan | None]) -> None:
        words, self._is_waiting = self._script.words, False
        try:
            plan = plan_of()
            if plan is None:
                _say(f"{words} runs as it is: its plan was found for another machine")
            elif plan.is_empty:
                _say(f"{words} runs as it is: nothing faster was found for it")
            else:
                from volano.script.apply import applied

                self._applied = self._context.enter_context(applied(plan))
                _say(f"{words} runs with {plan.in_words()}; without: --no-plan")
        except Exception as error:  # noqa: BLE001 - no reason for the script not to run
            _say(f"{words} runs as it is: {error}")

    def _is_of_plan(self) -> bool:
        """Checks whether a failure may be the plan's, and nothing is lost by starting again."""
        applied = self._applied
        if applied is None or not applied.deeds or applied.has_finished_step:
            return False
        if not self._is_own_process():
            return False
        if num_ranks() > 1:  # other ranks would wait for this one
            _say(f"{self._script.words} has failed before a step; without the plan: --no-plan")
            return False
        return True

    def _start_again(self, error: Exception) -> None:
        self._context.close()  # ends the loaders' workers
        for child in multiprocessing.active_children():
            child.terminate()
            child.join()
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_REASON]
        environment = {**environment_as_given(), _FAILED: for_terminal(reason)}
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with contextlib.suppress(OSError):
            os.chdir(self._started_in)
        # The same command line, with its options of the interpreter.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _here() -> Path:
    """Returns the current folder, which may have been removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path()


def _say(line: str) -> None:
    """Prints a line on standard error, of several ranks once."""
    if os.environ.get("RANK", "0") == "0":
        print(f"volano: {for_terminal(line)}", file=unfailing(sys.stderr), flush=True)
