"""Explains a script: first where the time of its steps goes, then which plans make it faster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from volano.script.advice import changes_for
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, remember
from volano.script.search.candidates import candidates_for
from volano.script.search.explanation import (
    ScriptCandidate,
    ScriptExplanation,
    describe_choice,
    describe_time,
    explanation_of,
)
from volano.script.search.race import ScriptRace
from volano.script.watch.launch import ScriptRunner, check_single_process

# Of the seconds for everything, the share in which the script is watched as it is.
_WATCH_SHARE, _LEAST_WATCH_SECONDS = 0.12, 1.0
# For the first run: a script may take long to begin, on a busy machine longer.
_LEAST_SECONDS = 60.0


def explain_script(
    script: Script,
    *,
    scratch: Sequence[str] = (),
    is_verbose: bool = False,
    is_bound: bool = False,
    seconds: float = 60.0,
    steps: int | None = None,
    say: Callable[[str], Any] = lambda _: None,
) -> ScriptExplanation:
    """Returns where the time of a script's steps goes, and what makes it faster.

    Args:
        script: the script and its arguments.
        scratch: folders and files in the current folder of which each run gets a copy.
        is_verbose: whether what the script prints is shown, on standard error.
        is_bound: whether the time before the script's first step counts too, so that everything
            ends in time. A script that fails then shows nothing: it is to run by itself.
        seconds: about how long everything may take from the script's first step on.
        steps: the most steps that are measured in each run; None is as many as there is time for.
        say: called with lines of text as soon as they are known.

    Raises:
        ScriptError: the script fails, or has nothing to explain.
    """
    check_single_process()
    started = time.monotonic()
    with ScriptRunner(script, scratch=scratch, is_verbose=is_verbose, is_quiet=is_bound) as runner:
        limits = watch_limits(seconds, steps)
        longest = seconds if is_bound else max(seconds, _LEAST_SECONDS)
        seen = runner.run(ScriptPlan(), limits=limits, seconds=longest)
        explanation = explanation_of(seen.record, script.words, script.arguments)
        for line in describe_time(explanation):
            say(line)
        # What a script does once, before its first step, is not held against its plans.
        deadline = started + seconds + (0.0 if is_bound else seen.startup_seconds)
        race = ScriptRace(runner, seen, deadline=deadline, is_bound=is_bound, steps=steps, say=say)
        explanation = _raced(explanation, race, script, seen.record, seconds, say)
    for line in describe_choice(explanation):
        say(line)
    return explanation


def _raced(
    explanation: ScriptExplanation,
    race: ScriptRace,
    script: Script,
    record: Mapping[str, Any],
    seconds: float,
    say: Callable[[str], Any],
) -> ScriptExplanation:
    """Returns the explanation with its candidates, and remembers the chosen plan."""
    candidates = candidates_for(explanation, record["precisions"], seconds)
    say("")
    say("candidates, each against the script as it is:")
    best = race.run(candidates.tried)
    chosen = ScriptPlan() if best is None else best.plan
    changes, diff = changes_for(chosen, script, explanation.facts)
    notices = [*explanation.notices, *race.notices]
    if race.candidates:
        gain = 1.0 if best is None else best.gain or 1.0
        said = remember(
            script, chosen, on=record["machine"], gain=gain, step_seconds=race.base_seconds
        )
        notices += [] if said is None else [f"the plan is not remembered: {said}"]
    return dataclasses.replace(
        explanation,
        candidates=tuple(
            dataclasses.replace(one, status="chosen") if one is best else one
            for one in race.candidates
        ),
        refused=candidates.refused,
        chosen=chosen,
        gain=1.0 if best is None else best.gain or 1.0,
        advice=tuple(
            change.in_words() + _gain_alone(change.settings, chosen, race.candidates)
            for change in changes
        ),
        diff=diff,
        notices=tuple(notices),
    )


def _gain_alone(
    settings: Sequence[str], chosen: ScriptPlan, candidates: Sequence[ScriptCandidate]
) -> str:
    """Returns what a part of the chosen plan gains by itself, if that was measured."""
    wanted = {name: value for name, value in chosen.settings().items() if name in settings}
    for one in candidates:
        if one.plan.settings() == wanted and one.plan != chosen and one.gain is not None:
            return f"  ({one.gain:.2f} times alone)"
    return ""


def watch_limits(seconds: float, steps: int | None) -> dict[str, float]:
    """Returns how long the script is watched as it is."""
    limits: dict[str, float] = {"seconds": max(_LEAST_WATCH_SECONDS, _WATCH_SHARE * seconds)}
    if steps is not None:
        limits["steps"] = steps
    return limits
