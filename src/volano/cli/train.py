"""The commands ``volano train`` and ``volano resume``."""

from __future__ import annotations

import functools
import inspect
import os
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from volano.apps.kinds import APPLICATIONS, options_for
from volano.apps.options import Options
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
from volano.collector import collector_paused
from volano.errors import UsageError
from volano.plan import parse_bytes
from volano.record.files import nearest
from volano.record.run_folder import RunFolder
from volano.record.shell import command, quoted

HELP = """Train an application, or a task of your own.

volano train image                         the embedded sample
volano train image ./photos --minutes 10   a folder of images for each class
volano train text ./books --minutes 10     a language model of your texts
volano train video ./clips --minutes 10    a model that generates clips
volano train my_task:task                  your own Task; its options: --help
volano train image ./photos --nproc 2      the same training by two processes
volano train --from runs/study-1           the best trial of a study
"""
_HELP_OF_OWN = (
    "Train a task or an application of your own, named as MODULE:NAME; or a trial of a "
    "study, with --from."
)


def _trial_options(
    study: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="STUDY", help="Train a trial of a study from its start to its end."
        ),
    ] = None,
    trial: Annotated[
        str | None, typer.Option(help="best (default) or its number, with --from.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Another length of the trial, with --from.")
    ] = None,
    trust: opt.Trust = False,
) -> None:
    """Declares the option of which trial of a study is trained."""


class TrainGroup(GroupByFirst):
    """The group ``volano train``: the commands are the applications, and whatever MODULE:NAME
    names."""

    shown: ClassVar[tuple[str, ...]] = tuple(APPLICATIONS)

    def named(self, name: str) -> Any:
        """The command for an application, for MODULE:NAME, or for a trial."""
        common = how_options()
        own = options_of(
            name, "What to train must be an application or a task of your own", "module:task"
        )
        if own is not None:
            function = functools.partial(_train, name)
            return command_of(
                function, [*flag_parameters(own), *common], name=name, help=help_of(name)
            )
        function = functools.partial(_train_own, name)
        return command_of(
            function, [*parameters_from(_trial_options), *common], name=name, help=_HELP_OF_OWN
        )


def options_of(name: str, rule: str, reference: str) -> type[Options] | None:
    """Returns the options of the application that a command line names; None for something else of
    a person's own.

    Raises:
        UsageError: it names nothing.
    """
    if name in APPLICATIONS:
        return APPLICATIONS[name]
    if ":" in name:
        from volano.apps.kinds import own_application
        from volano.running.trust import name_code

        name_code(name)
        application = own_application(name)
        return None if application is None else application.options_type
    if name:
        raise UsageError(rule, got=repr(name), remedy=_meant(name, reference))
    return None


def _meant(name: str, reference: str) -> str:
    """Returns what a person may have meant by the name of no application, in words."""
    path = Path(name)
    if (path / "run.json").is_file():
        return f"That is a run's folder, which is continued by: {RunFolder(path).resume_command}"
    if (path / "study.json").is_file():
        train = command(["volano", "train", "--from", name])
        resumed = command(["volano", "explore", "--resume", name])
        return (
            f"That is a study's folder; its best trial is trained by: {train}, and it is resumed "
            f"by: {resumed}"
        )
    if path.exists() and path.suffix != ".py":
        kinds = ", ".join(command([kind, name]) for kind in APPLICATIONS)
        return f"To use data, say for what: {kinds}"
    if path.is_file() or path.with_suffix(".py").is_file():
        return f"To use something in that file, name it: {name}:NAME"
    near = nearest(name, APPLICATIONS)
    return f"Nearest: {near[0]}" if near else f"Write {', '.join(APPLICATIONS)}, or {reference}"


def help_of(name: str) -> str:
    """A sentence about an application, for its command."""
    own = {
        "image": "Train a classifier of images.",
        "text": "Train a language model of texts, or a classifier with --classify.",
        "video": "Train a model that generates clips, or a classifier with --classify.",
    }
    return own.get(name, f"Train the application {name}.")


def train_app() -> typer.Typer:
    """Returns ``volano train``."""
    return group_of(TrainGroup, HELP, "image|text|video|MODULE:NAME [PATH] [OPTIONS]")


def _train(what: str, **values: Any) -> int:
    """Trains an application, or a task that a reference names."""
    started = time.perf_counter()  # loading PyTorch is a part of the minutes
    known = values.keys() - {parameter.name for parameter in how_options()}
    if what in APPLICATIONS:
        options_for(what, given(values, known))  # a wrong value is said before torch is loaded
    announce(what)
    if _has_followed():
        return 0
    from volano.api.train import train

    run = train(what, **given(values, known), **_common(values), started=started)
    return print_run(run, as_json=values["json"])


def _train_own(
    what: str,
    *,
    study: Path | None,
    trial: str | None,
    epochs: float | None,
    trust: bool,
    **values: Any,
) -> int:
    """Trains a task of a person's own, or a trial of a study; ``what`` with a study is its build
    function."""
    if study is not None and not (study / "study.json").is_file():
        raise UsageError(
            "A study's folder must hold study.json; without an application --from names one",
            got=f"none in {study}",
            remedy="To fine-tune a pretrained network, say for what: volano train image PATH "
            f"--from {study}",
        )
    if study is None:
        only = {"trial": trial, "epochs": epochs, "trust": trust or None}
        for name, value in given(only).items():
            raise UsageError(f"`{name}` is for a trial of a study", got=f"{value} without --from")
        return _train(what, **values)
    announce(f"a trial of {study}")
    if _has_followed():
        return 0
    from volano.api.train import train_trial

    common = _common(values)
    how = {name: common.pop(name) for name in ("out", "processes", "safety")}
    run = train_trial(
        study, trial or "best", build=what or None, epochs=epochs, trust=trust, planning=common,
        **how,
    )  # fmt: skip
    return print_run(run, as_json=values["json"])


def resume(
    run: opt.RunPath,
    nproc: opt.NumProcesses = "1",
    max_restarts: opt.MaxRestarts = 0,
    save_every: opt.SaveEvery = None,
    skip_bad_steps: opt.SkipBadSteps = None,
    code: opt.Code = None,
    trust: opt.Trust = False,
    accept: opt.Accept = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> int:
    """Resume a run that was stopped or killed, with any number of processes."""
    RunFolder.open(run)  # a mistake is said before torch is loaded
    announce(str(run))
    from volano.api.train import resume as resume_run
    from volano.running.processes import Processes

    processes = Processes(nproc=nproc, max_restarts=max_restarts, debug=debug)
    if _has_followed():
        return 0
    changes = given({"save_every": save_every, "skip_bad_steps": skip_bad_steps})
    if changes:
        from volano.running.train import change_safety

        change_safety(run, **changes)
    ended = resume_run(run, processes=processes, code=code, trust=trust, accept=accept or ())
    return print_run(ended, as_json=json)


def print_run(run: Any, *, as_json: bool) -> int:
    """Prints a run that has ended. Returns the exit code."""
    if as_json:
        output.print_json(output.run_record(run))
    elif run.status != "finished":
        output.say_unfinished(run)
    else:
        from volano.apps.kinds import application_of_run

        application = application_of_run(RunFolder.open(run.path), trust=True)  # it has just run
        if application is None:
            output.say(output.figures_in_words(run.metrics))
            commands = []
        else:
            output.say(*application.summary(run))
            place = Path(quoted(str(run.path)))
            commands = [output.to_paste(one, run.path) for one in application.next_commands(place)]
        if run.verdict is not None:
            output.say_verdict(run.verdict)
            commands = [*([run.verdict.longer] if run.verdict.longer else []), *commands]
        output.say_finished(run)
        for number, line in enumerate(commands):
            output.say(f"{'      ' if number else 'next: '}{line}")
    return 0 if run.status == "finished" else 1


def how_options() -> list[inspect.Parameter]:
    """Returns the parameters that every training has: how it is run, planned and printed."""
    run, shared = parameters_from(opt.run_options), parameters_from(opt.shared_options)
    return [*run, *opt.plan_options(), *shared]


def announce(what: str) -> None:
    """Says on standard error that a command has begun, and loads what takes seconds."""
    if os.environ.get("RANK", "0") == "0":
        output.warn(f"{what}: loading PyTorch ...")
    with collector_paused():
        import volano.api.train  # noqa: F401


def _has_followed() -> bool:
    """Returns whether this process is a rank other than the first; it has then done its part."""
    from volano.running.processes import follow, is_follower

    if not is_follower():
        return False
    follow()
    return True


def _common(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of ``volano.train`` for how a run is made and planned."""
    from volano.running.processes import Processes
    from volano.training import Safety

    processes = Processes(
        nproc=values["nproc"], max_restarts=values["max_restarts"], debug=values["debug"]
    )
    safety = Safety(**given(values, ("save_every", "skip_bad_steps")))
    return {"out": values["out"], "processes": processes, "safety": safety, **_planning(values)}


def _planning(values: dict[str, Any]) -> dict[str, Any]:
    if not values["no_plan"]:
        return {**given(values, ("plan",)), **planning(values)}
    if values["plan"] is not None or values["budget"] is not None or values["forbid"]:
        raise UsageError(
            "--no-plan, which is plain eager PyTorch, must come without knobs and limits of a plan",
            got="it together with --plan, --budget or --forbid",
        )
    from volano.device import Device
    from volano.plan import Plan

    return {"plan": Plan.baseline(Device(values["device"]).name).pin(**given(values, opt.KNOBS))}


def planning(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of the verbs for how a training is planned."""
    found: dict[str, Any] = {"device": values["device"], "pins": given(values, opt.KNOBS) or None}
    found["forbid"] = opt.forbidden(values["forbid"]) if values["forbid"] else None
    found["budget"] = None if values["budget"] is None else parse_bytes(values["budget"])
    return given(found)
