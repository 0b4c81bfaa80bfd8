"""The command ``volano plans``: the plans that were found before and are used again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from volano.cli import options as opt
from volano.cli import output
from volano.cli.explain import show_explanation
from volano.cli.generated import PlainCommand, PlainGroup
from volano.cli.show.explanation import print_table
from volano.record.format import count_text, milliseconds
from volano.record.json_values import number

if TYPE_CHECKING:
    from volano.planner.cache.store import Remembered
    from volano.script.remembered import RememberedScript

_DIGITS = 8  # of a fingerprint, enough to tell plans apart


def register(app: typer.Typer) -> None:
    """Adds ``plans`` and its commands to the application."""
    plans = typer.Typer(
        cls=PlainGroup,
        help="Plans that were found before and are used again.",
        no_args_is_help=True,
    )
    for name, command in (("list", list_plans), ("show", show_plan), ("clear", clear_plans)):
        plans.command(name, cls=PlainCommand)(command)
    app.add_typer(plans, name="plans")


def list_plans(json: opt.Json = False, debug: opt.Debug = False) -> int:  # noqa: ARG001 - read by cli.main
    """List every remembered plan, of tasks and of scripts, the newest first."""
    from volano.planner.cache.store import list_remembered
    from volano.record.cache_folder import cache_folder
    from volano.script.remembered import list_scripts

    found, scripts = list_remembered(), list_scripts()
    if json:
        output.print_json(
            {
                "folder": str(cache_folder() / "plans"),
                "plans": [_record(plan) for plan in found],
                "scripts": [script.to_json() for script in scripts],
            }
        )
    elif not found and not scripts:
        output.say(f"no plans are remembered in {cache_folder() / 'plans'}")
    else:
        columns = ("fingerprint", "task or script", "device", "plan", "ms a step", "age")
        rows = [(plan.created, _row(plan)) for plan in found]
        rows += [(script.created, _script_row(script)) for script in scripts]
        rows.sort(key=lambda row: -row[0])
        print_table(columns, [row for _, row in rows], right=(4, 5))
    return 0


def show_plan(
    fingerprint: Annotated[
        str, typer.Argument(metavar="FINGERPRINT", help="Its first characters are enough.")
    ],
    json: opt.Json = False,
    debug: opt.Debug = False,  # noqa: ARG001
) -> int:
    """The explanation of a remembered plan, as it was given when it was found."""
    from volano.planner.cache.store import find_remembered
    from volano.script.remembered import list_scripts

    scripts = [one for one in list_scripts() if one.fingerprint.startswith(fingerprint or "-")]
    if len(scripts) == 1:
        _show_script(scripts[0], as_json=json)
        return 0
    show_explanation(find_remembered(fingerprint).explanation, as_json=json)
    return 0  # what did not fit then is no failure of showing it


def clear_plans(json: opt.Json = False, debug: opt.Debug = False) -> int:  # noqa: ARG001
    """Forget every remembered plan; the next run searches again."""
    from volano.planner.cache.store import forget_all
    from volano.script.remembered import forget_scripts

    num_forgotten = forget_all() + forget_scripts()
    if json:
        output.print_json({"num_forgotten": num_forgotten})
    else:
        output.say(f"forgot {count_text(num_forgotten, 'plan')}")
    return 0


def _record(plan: Remembered) -> dict[str, object]:
    explanation = plan.explanation
    return {
        "fingerprint": plan.fingerprint,
        "created": plan.created,
        "task": explanation.task,
        "device": explanation.device,
        "device_name": explanation.device_name,
        "plan": explanation.plan.to_json(),
        "measured_seconds": explanation.measured,
        "path": plan.path,
    }


def _row(plan: Remembered) -> tuple[str, ...]:
    from volano.report.planning import read_planning

    planning = read_planning(plan.explanation)
    step = plan.explanation.measured
    if step is None and plan.explanation.time is not None:
        step = plan.explanation.time.step
    return (
        plan.fingerprint[:_DIGITS], planning.task, planning.device, planning.plan,
        milliseconds(step), _age(time.time() - plan.created),
    )  # fmt: skip


def _script_row(script: RememberedScript) -> tuple[str, ...]:
    return (
        script.fingerprint[:_DIGITS], script.script, str(script.machine[0]),
        script.plan.in_words(), milliseconds(_step_seconds(script)),
        _age(time.time() - script.created),
    )  # fmt: skip


def _step_seconds(script: RememberedScript) -> float | None:
    """Returns the seconds of a step under the plan."""
    step, gain = number(script.figures.get("step_seconds")), number(script.figures.get("gain"))
    return None if step is None else step / (gain or 1.0)


def _show_script(script: RememberedScript, *, as_json: bool) -> None:
    if as_json:
        output.print_json(script.to_json())
        return
    output.say(f"{script.script}: {script.plan.in_words()}")
    step, gain = _step_seconds(script), number(script.figures.get("gain"))
    if step is not None:
        output.say(f"  {milliseconds(step)} ms a step, {gain or 1:.2f} times as fast as the script")
    if script.figures.get("reason"):
        output.say(f"  {script.figures['reason']}")
    output.say(f"  age: {_age(time.time() - script.created)}; on {script.machine[0]}")
    output.say(f"  {script.path}")


def _age(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return count_text(seconds // size, unit)
    return "just now"
