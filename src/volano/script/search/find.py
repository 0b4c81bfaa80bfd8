"""Finds a plan before a script runs, in at most a twentieth of the time that the run will take.

It is looked for in a process of its own: the script's would otherwise have imported what a search
needs, before the script sets variables of the environment.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volano.errors import VolanoError, first_line
from volano.record.format import seconds_text
from volano.script.lengths import ScriptLength, expected_length
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, may_be_remembered, remember
from volano.script.watch.launch import python_command

_SHARE = 0.05  # of the whole run
# Its own process begins and ends in so long; not counted by the search.
_OWN_SECONDS = 5.0
# The fewest runs of the script that can lead to a plan: as it is three times, with other threads,
# two plans; each with its start and so many seconds of steps.
_LEAST_RUNS, _RUN_SECONDS = 6, 2.5
_MOST_SECONDS = 300.0  # whatever the length: all candidates, compiled ones too, have had their turn
_END_SECONDS = 5.0


def find_first(
    script: Script, say: Callable[[str], Any], *, seconds: float | None = None
) -> ScriptPlan | None:
    """Returns the plan that is found for a script before it runs, an empty one if nothing is
    faster; None if none is looked for, since the run's length is not known or too short. What is
    found is remembered.

    Args:
        script: the script and its arguments.
        say: called with a line that says what is done.
        seconds: how long to search; None is a twentieth of the length that earlier runs tell.
    """
    why = "as asked for"
    if seconds is None:
        length = expected_length(script)
        seconds = None if length is None else seconds_to_search(length)
        if length is None or seconds is None:
            return None
        if length.written is not None:
            # Each run of a search would write it as well, and may go on from what another left.
            say(
                f"{script.words}: no plan is looked for, since its runs write files here, such "
                f"as {length.written}; --find SECONDS looks for one, volano explain --scratch "
                "elsewhere"
            )
            return None
        at_least = "" if length.is_whole else "at least "
        why = f"it takes {at_least}{seconds_text(length.seconds)}, as an earlier run tells"
    say(f"{script.words}: a plan is looked for first, for at most {seconds:.0f} s: {why}")
    plan, reason = _searched(script, seconds)
    if reason:
        say(f"{script.words}: no plan was found: {reason}")
    return plan


def seconds_to_search(length: ScriptLength) -> float | None:
    """Returns how long a plan may be looked for; None if that is too short to find one."""
    seconds = min(_MOST_SECONDS, _SHARE * length.seconds)
    needed = _OWN_SECONDS + _LEAST_RUNS * (length.startup_seconds + _RUN_SECONDS)
    return seconds if seconds >= needed else None


def _searched(script: Script, seconds: float) -> tuple[ScriptPlan, str]:
    """Returns the plan of a search in a process of its own, and why there is none."""
    with tempfile.TemporaryDirectory(prefix="volano-find-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job.write_text(json.dumps({"script": vars(script), "seconds": seconds}), encoding="utf-8")
        process = subprocess.Popen(
            python_command("volano.script.search.find", str(job), str(result)),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _end(process)
        try:
            record = json.loads(result.read_text(encoding="utf-8"))
            return ScriptPlan.from_json(record["plan"]), str(record["reason"])
        except (OSError, ValueError, KeyError):
            return ScriptPlan(), "the search has not come to its end"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the search as Ctrl-C does: it ends the script's runs, which are groups of their own."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        process.kill()
        process.wait()


def main() -> None:
    """Searches a plan for the script that a job names, remembers it, and writes it."""
    from volano.script.search.explain import explain_script

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    about = {**job["script"], "arguments": tuple(job["script"]["arguments"])}
    script, plan, reason = Script(**about), ScriptPlan(), ""
    try:
        seconds = max(1.0, job["seconds"] - _OWN_SECONDS)
        plan = explain_script(script, seconds=seconds, is_bound=True).chosen
    except VolanoError as error:
        reason = first_line(error)
    if not may_be_remembered(script):  # so that it is not looked for again at each run
        with contextlib.suppress(VolanoError):
            remember(script, plan, reason=reason)
    text = json.dumps({"plan": plan.to_json(), "reason": reason})
    Path(sys.argv[2]).write_text(text, encoding="utf-8")
