"""The command ``volano explore``: many configurations, trained as packs and pruned together."""

from __future__ import annotations

import functools
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
from volano.cli.train import announce, options_of
from volano.errors import UsageError
from volano.record.run_folder import PAGE
from volano.record.shell import quoted

if TYPE_CHECKING:
    from volano.api.verify import Verification
    from volano.study.study import Study

_STUDY, _WHERE = "Study", "Where"
_NUM_SHOWN = 5  # trials in the table at the end
HELP = """Try many configurations at once: sampled, trained as one program, pruned together.

volano explore image ./photos --trials 64 --minutes 10
volano explore my_file:build --trials 81 --verify 3
volano explore --resume runs/image-study-1

Exit code 1: the study was stopped before its end, or a verified trial differs.
"""

# Of one training: a study has its own, or compares trials by their last figures.
_NOT_OF_STUDIES = ("minutes", "epochs", "seed", "keep", "patience")


def _study_options(
    trials: Annotated[
        int | None, typer.Option(help="Configurations to try; default 64.", rich_help_panel=_STUDY)
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time for the whole study; default for an application: 10.", rich_help_panel=_STUDY
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Figure of the evaluation to compare trials by; default loss.",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="minimize or maximize that figure.", rich_help_panel=_STUDY)
    ] = None,
    eta: Annotated[
        int | None,
        typer.Option(
            help="At each rung one trial in so many continues; default 3.", rich_help_panel=_STUDY
        ),
    ] = None,
    rungs: Annotated[
        int | None, typer.Option(help="Number of rungs; 1 prunes nothing.", rich_help_panel=_STUDY)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the sampler.", rich_help_panel=_STUDY)
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna storage: a URL or a journal; default: in the folder.",
            rich_help_panel=_STUDY,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; default runs/NAME-DATE-TIME.")
    ] = None,
    verify: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Train so many trials again alone and compare; differences: exit code 1.",
        ),
    ] = 0,
    nproc: Annotated[
        int | None,
        typer.Option(
            help="Processes that train packs on this machine; default: as many as pay.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Now --nproc.", hidden=True)] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Ray: local, auto or HOST:PORT.", rich_help_panel=_WHERE
        ),
    ] = None,
    device: opt.DeviceName = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, tf32 or bf16.", rich_help_panel=_WHERE)
    ] = None,
    json: opt.Json = False,
    debug: opt.Debug = False,
) -> None:
    """Declares the options of how a study is made."""


def _space_option(
    space: Annotated[
        Path | None,
        typer.Option(help="JSON or TOML: another search space.", rich_help_panel=_STUDY),
    ] = None,
) -> None:
    """Declares the option of what an application's study tries."""


def _resume_option(
    resume: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Resume the study in this folder.")
    ] = None,
    trust: opt.Trust = False,
) -> None:
    """Declares the option of which study is resumed."""


class ExploreGroup(GroupByFirst):
    """The group ``volano explore``: the commands are the applications, and whatever MODULE:NAME
    names."""

    shown: ClassVar[tuple[str, ...]] = tuple(APPLICATIONS)

    def named(self, name: str) -> Any:
        """The command for an application, for MODULE:NAME, or for a study to resume."""
        rule = "What to explore must be an application, or a function of a trial"
        own = options_of(name, rule, "module:build; --resume STUDY continues one")
        study = parameters_from(_study_options)
        if own is None:
            parameters = [*parameters_from(_resume_option), *study]
        else:
            path, *others = flag_parameters(own, leave_out=_NOT_OF_STUDIES)
            parameters = [path, *parameters_from(_space_option), *study, *others]
        help = (
            f"Try many configurations of {name or 'a task'} at once, trained as one program "
            "and pruned together."
        )
        return command_of(functools.partial(_explore, name), parameters, name=name, help=help)


def explore_app() -> typer.Typer:
    """Returns ``volano explore``."""
    return group_of(ExploreGroup, HELP, "image|text|video|MODULE:BUILD [PATH] [OPTIONS]")


def _explore(
    what: str,
    *,
    verify: int,
    out: Path | None,
    json: bool,
    debug: bool,
    resume: Path | None = None,
    trust: bool = False,
    **values: Any,
) -> int:
    del debug  # read by cli.main
    announce(what or str(resume))
    from volano.api.explore import explore

    workers = values.pop("workers")  # the name of version 0.1
    asked = given({**values, "nproc": workers if values["nproc"] is None else values["nproc"]})
    if resume is not None:
        study = explore(
            _build_again(resume, what or None, trust),
            out=_folder(resume, out),
            resume=True,
            trust=trust,
            **asked,
        )
    elif not what:
        raise UsageError(
            "What to explore must be an application, or a function of a trial",
            got="none",
            remedy=f"Write {', '.join(APPLICATIONS)}, or module:build; --resume STUDY continues "
            "one",
        )
    else:
        study = explore(what, out=out, on_progress=output.warn, **asked)
    return _finish(study, verify=verify, as_json=json)


def _build_again(study: Path, what: str | None, trust: bool) -> Any:
    from volano.apps.study_build import build_of
    from volano.running.trust import trust_folder
    from volano.study.study import Study

    if what is not None and ":" not in what:
        raise UsageError(
            "A resumed study knows what it is of",
            got=f"{what} with --resume",
            remedy="Leave it out",
        )
    trust_folder(study, trust)
    if what is not None:
        return what
    opened = Study.open(study)
    return build_of(opened.facts.get("source"), opened.folder)


def _folder(resume: Path, out: Path | None) -> Path:
    if out is not None and out != resume:
        raise UsageError(
            "A resumed study must stay in its own folder", got=f"--out {out} with --resume {resume}"
        )
    return resume


def _finish(study: Study, *, verify: int, as_json: bool) -> int:
    if not as_json:
        _print(study)
    verification = _verified(study, verify) if verify else None
    if as_json:
        output.print_json(_record(study, verification))
    elif verification is not None:
        output.say("", *verification.lines())
    return 0 if study.status == "finished" and (verification is None or verification.passed) else 1


def _verified(study: Study, n: int) -> Verification | None:
    from volano.api.verify import verify

    if study.status != "finished":
        output.warn("nothing is verified before the study has ended")
        return None
    return verify(study, n, on_progress=output.warn)


def _print(study: Study) -> None:
    from volano.study.progress import parameters, percent

    shown = [trial for trial in study.trials if trial.value is not None and trial.state != "failed"]
    sign = 1.0 if study.settings.get("direction") == "minimize" else -1.0
    shown.sort(key=lambda trial: (-trial.share, sign * (trial.value or 0.0)))
    if shown:
        output.print_table(
            "",
            ("trial", str(study.settings.get("metric")), "of the run", "parameters"),
            [
                (t.number, f"{t.value:.5g}", percent(t.share), parameters(t.params))
                for t in shown[:_NUM_SHOWN]
            ],
            right=(0, 1, 2),
        )
    failed = [trial for trial in study.trials if trial.state == "failed"]
    if failed:
        output.say(
            f"{len(failed)} of {len(study.trials)} trials failed; trial {failed[0].number}: "
            f"{failed[0].reason}"
        )
    output.say(f"study: {study.folder}")
    if study.path(PAGE).is_file():
        output.say(f"report: {study.path('report.html')}")
    source, folder = study.facts.get("source", {}), quoted(str(study.folder))
    trust = " --trust" if source.get("kind") == "reference" else ""  # of one's own, just now
    if study.status != "finished":
        output.say(f"resume: volano explore --resume {folder}{trust}")
    elif shown and source.get("kind") != "python":
        output.say(f"train the best: volano train --from {folder}{trust}")


def _record(study: Study, verification: Verification | None) -> dict[str, Any]:
    facts = {
        name: study.facts.get(name)
        for name in ("status", "reason", "settings", "counts", "steps", "seconds", "best")
    }
    return {
        "study": str(study.folder),
        **facts,
        "report": str(study.path(PAGE)) if study.path(PAGE).is_file() else None,
        "verified": None if verification is None else verification.passed,
    }
