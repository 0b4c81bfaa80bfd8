"""The command ``volano explain``: what the planner would choose, or has chosen for a run, and why;
and for another's script, where its time goes.

Volano's options stand before a script; all that follows it is the script's.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from volano.apps.kinds import APPLICATIONS
from volano.cli import options as opt
from volano.cli import output
from volano.cli.generated import (
    GroupByFirst,
    command_of,
    flag_parameters,
    given,
    group_of,
    parameters_from,
)
from volano.cli.show.cluster import show_cluster, train_command
from volano.cli.show.explanation import print_explanation
from volano.cli.train import announce, options_of, planning
from volano.errors import UsageError
from volano.script.remembered import Script
from volano.script.run import check_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from volano.plan.explanation import Explanation
    from volano.script.search.explanation import ScriptExplanation
    from volano.training import Observer

HELP = """Say how a training would be run and why, without training.

volano explain image ./photos
volano explain my_task:task --budget 8GiB --analyze
volano explain my_task:task --no-race     predictions only
volano explain text ./books --on H100     for a device that is not here
volano explain my_task:task --on "H100 x 64" --job slurm
volano explain runs/image-1               why the plan of that run was taken
volano explain train.py --lr 0.1          your own script: where its time goes

Exit code 1: nothing fits into the memory. Exit code 3: a script could save more than --check.
"""


MODULE = "-m "  # begins the name of a script that is a module
_SUFFIXES = (".py", ".pyw", ".ipynb")
_WASTEFUL = 3  # the exit code if a script could be faster than was asked for


def _explain_options(
    analyze: Annotated[
        bool,
        typer.Option(
            "--analyze", help="Run the plan for some steps; show measured next to predicted."
        ),
    ] = False,
    race: Annotated[
        bool | None,
        typer.Option(
            "--race/--no-race", help="Run the candidates, or none; default: if that pays."
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="A device that is not here, by name, or many: predicts, runs nothing. H100, "
            "RTX 4090, 'H100 x 64'."
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Machines over which many devices are spread (--on).")
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="slurm or ray: print the job's file too (--on with many).")
    ] = None,
) -> None:
    """Declares the options of how a plan is explained."""


def _script_options(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="The script's own arguments.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Time for everything, from the script's first step on.")
    ] = 60.0,
    steps: Annotated[
        int | None, typer.Option(help="Steps to measure in each run, at most.")
    ] = None,
    scratch: Annotated[
        list[str] | None,
        typer.Option(help="What the script writes here: each run gets a copy. Several times."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write a page of it (.html), or the plan for `volano run --plan` (.json). Several "
            "times."
        ),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print what to write as a unified diff, at the end.")
    ] = False,
    check: Annotated[
        float | None,
        typer.Option(help="Exit code 3 if more than this share of the time could be saved: 0.2."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show what the script prints, on stderr.")
    ] = False,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Declares the options of how a script is explained."""


class ExplainGroup(GroupByFirst):
    """The group ``volano explain``: the commands are the applications, what MODULE:NAME names, and
    folders of runs."""

    shown: ClassVar[tuple[str, ...]] = tuple(APPLICATIONS)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts a script's name before Volano's options, which stand first there."""
        options = [p for p in _script_command("").params if not getattr(p, "is_flag", True)]
        valued = {flag for option in options for flag in option.opts}
        words = name_first(args, valued)
        is_module = bool(words) and words[0].startswith(MODULE)
        return super().parse_args(ctx, ["--", *words] if is_module else words)

    def named(self, name: str) -> Any:
        """The command for an application, for MODULE:NAME, for a run, or for a script."""
        if is_script(name):
            return _script_command(name)
        if name and (Path(name) / "run.json").is_file():
            function = functools.partial(_explain_run, Path(name))
            help = (
                "Say why a run's plan is what it is. It was made when the run began: there is "
                "nothing left to choose."
            )
            return command_of(function, parameters_from(opt.shared_options), name=name, help=help)
        rule = "What to explain must be an application, a task of your own, a run, or a script"
        own = options_of(name, rule, "module:task, the folder that train printed, or train.py")
        asked, shared = parameters_from(_explain_options), parameters_from(opt.shared_options)
        parameters = [*asked, *opt.plan_options(), *shared]
        if own is not None:
            parameters = [*flag_parameters(own), *parameters]
        help = f"Say how {name or 'it'} would be trained and why, without training."
        return command_of(functools.partial(_explain, name), parameters, name=name, help=help)


def explain_app() -> typer.Typer:
    """Returns ``volano explain``."""
    return group_of(ExplainGroup, HELP, "image|text|video|MODULE:NAME|RUN|SCRIPT.py ...")


def _script_command(name: str) -> Any:
    """Returns the command that explains a script."""
    help = "Say where the time of a script's steps goes. Its own arguments stand behind its name."
    function = functools.partial(_explain_script, name)
    return command_of(function, parameters_from(_script_options), name=name, help=help)


def first_answer() -> Observer:
    """Returns an observer that shows progress on standard error, and on standard output what is
    predicted, before the race: all that a race may change."""
    from volano.training import Observer, Observers, make_progress

    class FirstAnswer(Observer):
        """Prints the predictions."""

        def on_explanation(self, explanation: Explanation) -> None:
            print_explanation(explanation, sections=("headline", "candidates"))
            output.say("")

    return Observers(make_progress(), FirstAnswer())


def show_explanation(explanation: Explanation, *, as_json: bool) -> int:
    """Prints an explanation. Returns the exit code: 1 if nothing fits."""
    if as_json:
        output.print_json(explanation.to_json())
    else:
        print_explanation(explanation)
    return 1 if explanation.verdict == "NO" else 0


def _explain(
    what: str,
    *,
    json: bool,
    debug: bool,
    analyze: bool,
    race: bool | None,
    on: str | None,
    nodes: int | None,
    job: str | None,
    **values: Any,
) -> int:
    del debug  # read by cli.main
    announce(what)
    from volano.api.explain import explain
    from volano.plan.cluster import ClusterExplanation

    how = {parameter.name for parameter in opt.plan_options()}
    options = given({name: value for name, value in values.items() if name not in how})
    where = given({"on": on, "nodes": nodes})
    found = explain(
        what, analyze=analyze, race=race, observer=None if json else first_answer(),
        **{"on": None, **where}, **planning(values), **options,
    )  # fmt: skip
    if not isinstance(found, ClusterExplanation):
        if job is not None:
            raise UsageError(
                "`job` must come with many devices in `on`", got=f"{job} without on='H100 x 64'"
            )
        return show_explanation(found, as_json=json)
    return show_cluster(found, train_command(what, options, found), job, as_json=json)


def _explain_run(run: Path, *, json: bool, debug: bool) -> int:
    """Shows what stands in a run's folder."""
    del debug  # read by cli.main
    from volano.api.explain import explain_run

    return show_explanation(explain_run(run), as_json=json)


def name_first(arguments: list[str], valued: set[str]) -> list[str]:
    """Returns a command line with the script's name first, and its own arguments behind ``--``; as
    it is, if it names no script.

    Args:
        arguments: Volano's options, then ``SCRIPT.py`` or ``-m MODULE``, then the script's.
        valued: those of Volano's options that take a value.
    """
    place = 0
    while place < len(arguments):
        argument = arguments[place]
        if argument == "-m" and place + 1 < len(arguments):
            name, rest = MODULE + arguments[place + 1], arguments[place + 2 :]
            return [name, *arguments[:place], "--", *rest]
        if not argument.startswith("-"):
            if not is_script(argument):
                return arguments
            return [argument, *arguments[:place], "--", *arguments[place + 1 :]]
        place += 2 if argument in valued else 1
    return arguments


def is_script(name: str) -> bool:
    """Returns whether a name is that of a script, and no reference, application or run."""
    return name.startswith(MODULE) or (name.endswith(_SUFFIXES) and ":" not in Path(name).name)


def _explain_script(
    name: str,
    *,
    arguments: list[str] | None,
    seconds: float,
    steps: int | None,
    scratch: list[str] | None,
    out: list[Path] | None,
    diff: bool,
    check: float | None,
    verbose: bool,
    json: bool,
    debug: bool,
) -> int:
    """Explains a script, and prints what is found as it is found. Returns the exit code."""
    del debug  # read by cli.main
    from volano.script.search.explain import explain_script

    _check_outs(out or ())
    check_seconds("seconds", seconds)
    if check is not None and not 0 <= check < 1:
        raise UsageError("`check` must be a share from 0 to below 1", got=check)
    if steps is not None and steps < 1:
        raise UsageError("`steps` must be at least 1", got=steps)
    write: Any = output.warn if json else output.say

    def say(line: str) -> None:
        write(re.sub(r"`(\w+)`", r"--\1", line))

    is_module = name.startswith(MODULE)
    script = Script(
        target=name.removeprefix(MODULE), is_module=is_module, arguments=tuple(arguments or ())
    )
    _say_misplaced(script)
    explanation = explain_script(
        script, scratch=scratch or (), is_verbose=verbose, seconds=seconds, steps=steps, say=say
    )
    for path in out or ():
        _write(explanation, path)
    if json:
        output.print_json(explanation.to_json())
    elif diff:
        output.write(explanation.diff)
    return _WASTEFUL if check is not None and explanation.wasted_share > check else 0


def _say_misplaced(script: Script) -> None:
    options = _script_command("").params
    flags = [flag for one in options if one.param_type_name == "option" for flag in one.opts]
    for flag in script.misplaced(flags):
        output.warn(f"note: {flag} stands behind {script.words}, whose own it is:")
        output.warn("  Volano's options stand before it")


def _check_outs(paths: Iterable[Path]) -> None:
    """Raises UsageError for a file that could not be written, before minutes are spent."""
    from volano.record.files import check_out

    for path in paths:
        if path.suffix not in (".html", ".json"):
            got = f"{path}; a page is an .html file, a plan a .json file"
            raise UsageError("`out` must name a page or a plan", got=got)
        if not path.parent.is_dir():
            raise UsageError("`out` must lie in a folder", got=f"no folder {path.parent}")
        check_out(path)


def _write(explanation: ScriptExplanation, path: Path) -> None:
    if path.suffix == ".html":
        from volano.script.search.page import write_script_page

        write_script_page(explanation, path)
    else:
        explanation.chosen.save(path)
    output.warn(f"written: {path}")
