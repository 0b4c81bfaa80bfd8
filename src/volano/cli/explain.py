"""The command ``volano explain``: what the planner would choose, or has chosen for a run, and
why."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from volano.apps.kinds import APPLICATIONS
from volano.cli import options as opt
from volano.cli import output
from volano.cli.explanation import print_explanation
from volano.cli.generated import (
    GroupByFirst,
    command_of,
    given,
    group_of,
    parameters_from,
    parameters_of,
)
from volano.cli.train import begin, options_of, planning

if TYPE_CHECKING:
    from volano.plan.explanation import Explanation

HELP = """Say how a training would be run and why, without training: memory, time, candidates.

volano explain image ./photos

volano explain my_task:task --budget 8GiB --analyze

volano explain text ./books --on H100

volano explain runs/image-1               why that run's plan is what it is

Exit code 1: nothing fits into the memory.
"""


def _explain_options(
    analyze: Annotated[
        bool,
        typer.Option(
            "--analyze", help="Run the plan for some steps; show measured next to predicted."
        ),
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            help="A device that is not here, by name: predicts, runs nothing. H100, RTX 4090."
        ),
    ] = None,
) -> None:
    """Declares the options of how a plan is explained."""


class ExplainGroup(GroupByFirst):
    """The group ``volano explain``: the commands are the applications, what MODULE:NAME names, and
    folders of runs."""

    shown: ClassVar[tuple[str, ...]] = tuple(APPLICATIONS)

    def named(self, name: str) -> Any:
        """The command for an application, for MODULE:NAME, or for a run."""
        if name and (Path(name) / "run.json").is_file():
            function = functools.partial(_explain_run, Path(name))
            help = (
                "Say why a run's plan is what it is. It was made when the run began: there is "
                "nothing left to choose."
            )
            return command_of(function, parameters_from(opt.shared_options), name=name, help=help)
        rule = "What to explain is an application, a task of your own, or the folder of a run"
        own = options_of(name, rule, "module:task, or the folder that train printed")
        asked, shared = parameters_from(_explain_options), parameters_from(opt.shared_options)
        parameters = [*asked, *opt.plan_options(), *shared]
        if own is not None:
            parameters = [*parameters_of(own), *parameters]
        help = f"Say how {name or 'it'} would be trained and why, without training."
        return command_of(functools.partial(_explain, name), parameters, name=name, help=help)


def explain_app() -> typer.Typer:
    """Returns ``volano explain``."""
    return group_of(ExplainGroup, HELP, "image|text|video|MODULE:NAME|RUN [PATH] [OPTIONS]")


def show(explanation: Explanation, *, as_json: bool) -> int:
    """Prints an explanation. Returns the exit code: 1 if nothing fits."""
    if as_json:
        output.print_json(explanation.to_json())
    else:
        print_explanation(explanation)
    return 1 if explanation.verdict == "NO" else 0


def _explain(
    what: str, *, json: bool, debug: bool, analyze: bool, on: str | None, **values: Any
) -> int:
    del debug  # read by cli.main
    begin(what)
    from volano.api.explain import explain

    how = {parameter.name for parameter in opt.plan_options()}
    options = given({name: value for name, value in values.items() if name not in how})
    return show(explain(what, analyze=analyze, on=on, **planning(values), **options), as_json=json)


def _explain_run(run: Path, *, json: bool, debug: bool) -> int:
    """Shows what stands in a run's folder."""
    del debug  # read by cli.main
    from volano.api.explain import explain_run

    return show(explain_run(run), as_json=json)
