"""The page of a study: the best configuration, what the parameters did, how the trials went, and
what packs gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.record.format import (
    NOTHING,
    capital,
    count_text,
    figure_text,
    plain_number,
    seconds_text,
    short,
    title_of,
)
from volano.record.json_values import mapping, number, sequence
from volano.record.run_folder import PAGE
from volano.record.study import BestTrial, StudyRecord, TrialResult, read_study
from volano.report.experiment import setting_text
from volano.report.figures import Figure
from volano.report.page import MODEL_WORDS, Pieces, render, save_page
from volano.report.study.packs import UNIT, packing_of
from volano.report.study.pictures import parallel_coordinates, rung_curves

MOST_TRIALS = 200  # in the table; all stand in trials.jsonl
_MOST_ROWS = 100  # of packs, groups of packs and failures
_LONGEST = 120  # characters of a value in the table
# Below this many trials an importance says nothing: Optuna's own first trials, drawn at random, are
# 10.
LEAST_TRIALS = 10


@dataclass(frozen=True, kw_only=True)
class Importances:
    """The estimate of the parameters' importances, over trials that were trained equally far.

    Attributes:
        shares: share of the values' spread that each parameter explains; empty if that is unknown.
        num_trials: number of trials that have a value there.
        share: share of each trial's whole run at which the values were taken.
        is_flat: whether all have the same value.
        failure: error of the estimate, or empty.
    """

    shares: Mapping[str, float]
    num_trials: int
    share: float
    is_flat: bool = False
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance of a parameter: its share in words, and the length of its bar in percent of
    the longest."""

    name: str
    text: str
    percent: float


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial in words. ``params`` follow the study's parameters."""

    number: int
    params: tuple[str, ...]
    value: str
    epochs: str
    state: str
    reason: str
    is_best: bool


def write_study_report(folder: Path, importances: Importances | None = None) -> Path:
    """Writes ``report.html`` into a study's folder and returns its path.

    Args:
        folder: folder of the study, whether it has ended or not.
        importances: importances of its parameters; None if they were not estimated.

    Raises:
        UsageError: it is not a study's folder.
        RunError: the page cannot be written.
    """
    record = read_study(folder)
    return save_page(render_study(record, importances), record.folder / PAGE)


def render_study(record: StudyRecord, importances: Importances | None = None) -> str:
    """Returns the page as HTML; everything that it shows stands in it."""
    pieces = Pieces(missing=list(record.missing))
    nothing: tuple[Any, ...] = ()
    pieces.add("figures", lambda: _figures(record), otherwise=nothing)
    pieces.add("best_configuration", lambda: _best_rows(record), otherwise=nothing)
    pieces.add("settings", lambda: _settings_rows(record), otherwise=nothing)
    pieces.add("importances", lambda: _importances(importances), otherwise=nothing)
    pieces.add("parallel_coordinates", lambda: parallel_coordinates(record))
    pieces.add("rung_curves", lambda: rung_curves(record))
    pieces.add("packing", lambda: packing_of(record, _MOST_ROWS))
    pieces.add("trials", lambda: _trial_rows(record), otherwise=nothing)
    pieces.add("failures", lambda: _failures(record), otherwise=nothing)
    return render(
        "study.html.j2",
        record=record,
        best=record.find_best(),
        lede=_lede(record),
        state=_state(record),
        about_importances=_about_importances(record, importances),
        metric=capital(title_of(record.metric)),
        parameters=record.parameters,
        num_trials=len(record.trials),
        most_rows=_MOST_ROWS,
        notices=[str(notice) for notice in sequence(record.facts.get("notices"))],
        missing=pieces.missing,
        **pieces.found,
    )


# ---- the headline


def _lede(record: StudyRecord) -> str:
    source = mapping(record.facts.get("source"))
    kind = str(source.get("kind") or "")
    made_by = MODEL_WORDS.get(kind) or source.get("reference")
    goal = "the largest" if record.is_maximized else "the smallest"
    of = (
        f" of {'an ' if kind == 'image' else 'a ' if kind in MODEL_WORDS else ''}{made_by}"
        if made_by
        else ""
    )
    sampler = record.settings.get("sampler")
    drawn = f" Drawn by Optuna's {sampler}." if sampler else ""
    return (
        f"{count_text(len(record.trials), 'configuration')}{of}, compared by {goal} "
        f"{title_of(record.metric)} of the "
        f"evaluation.{drawn}"
    )


def _state(record: StudyRecord) -> str:
    """Returns one sentence on a study that is not finished; empty for one that is."""
    reason = record.facts.get("reason")
    if record.status == "finished":
        return ""
    if record.status == "failed":
        return f"This study failed: {reason or 'no reason was recorded'}"
    if record.status == "stopped":
        return (
            f"This study was stopped before its end: {reason or 'no reason was recorded'}. It "
            "can continue."
        )
    return "This study had not ended when this page was made; it shows how far it had come."


def _figures(record: StudyRecord) -> list[Figure]:
    """Returns the figures, the best value first."""
    best, facts = record.find_best(), record.facts
    states = [trial.state for trial in record.trials]
    words = {"complete": "complete", "pruned": "cut", "failed": "failed", "running": "not ended"}
    counts = [(states.count(state), word) for state, word in words.items()]
    value = NOTHING if best is None else figure_text(record.metric, best.value)
    beside = (
        "no trial has shown a number" if best is None else f"trial {best.number}{_how_far(best)}"
    )
    figures = [
        Figure(name=f"Best {title_of(record.metric)}", value=value, beside=beside),
        Figure(
            name="Trials",
            value=plain_number(len(states)),
            beside=", ".join(f"{plain_number(count)} {word}" for count, word in counts if count),
        ),
    ]
    if number(facts.get("seconds")) is not None:
        figures.append(
            Figure(
                name="Time", value=seconds_text(facts["seconds"]), beside="of all runs of the study"
            )
        )
    speed = number(facts.get("steps_per_second"))
    if speed:
        steps = number(facts.get("steps"))
        figures.append(
            Figure(
                name=f"{capital(UNIT)}s a second",
                value=plain_number(float(f"{speed:.3g}")),
                beside=""
                if steps is None
                else f"{count_text(steps, 'optimizer step')} of single trials, while packs trained",
            )
        )
    return figures


def _how_far(trial: BestTrial) -> str:
    return "" if trial.share >= 1 else f", after {100 * trial.share:.3g} % of its run"


def _best_rows(record: StudyRecord) -> list[tuple[str, str]]:
    """Returns name and value of each of its parameters, with all digits, so that they can be
    copied."""
    best = record.find_best()
    return (
        []
        if best is None
        else [(name, setting_text(value, "none")) for name, value in best.params.items()]
    )


def _settings_rows(record: StudyRecord) -> list[tuple[str, str]]:
    settings, shares = record.settings, sequence(record.settings.get("shares"))
    known = [share for share in map(number, shares) if share is not None]
    eta, minutes = number(settings.get("eta")), number(settings.get("minutes"))
    workers = [
        f"{name} {settings[name]}"
        for name in ("device", "nproc", "workers", "ray", "precision")
        if settings.get(name)
    ]
    versions = mapping(record.facts.get("versions"))
    rows = [
        (
            "Metric",
            f"{title_of(record.metric)}, {'maximized' if record.is_maximized else 'minimized'}",
        ),
        ("Trials asked for", settings.get("trials")),
        ("Minutes at most", None if minutes is None else plain_number(minutes)),
        (
            "Rungs",
            ", ".join(f"{100 * share:.3g} %" for share in known) + " of a run" if known else None,
        ),
        ("Continues at a rung", None if eta is None else f"the best 1/{plain_number(eta)}"),
        ("Side by side", settings.get("width")),
        ("Sampler", settings.get("sampler")),
        ("Seed", settings.get("seed")),
        ("Workers", ", ".join(workers)),
        ("Begun", record.facts.get("created")),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        ),
    ]
    return [(title, short(str(value), 600)) for title, value in rows if value not in (None, "")]


# ---- parameters


def _importances(importances: Importances | None) -> list[Importance]:
    shares = {} if importances is None else importances.shares
    known = {
        str(name): value for name, item in shares.items() if (value := number(item)) is not None
    }
    longest = max(known.values(), default=0.0)
    return [
        Importance(
            name=name,
            text=f"{100 * value:.1f} %",
            percent=round(100 * max(0.0, value) / longest, 2) if longest > 0 else 0,
        )
        for name, value in sorted(known.items(), key=lambda item: -item[1])
    ]


def _about_importances(record: StudyRecord, found: Importances | None) -> str:
    """Returns over what the importances were estimated, or why there are none."""
    if found is None:
        return "No importances: they were not estimated when this page was made."
    num = found.num_trials
    if num < LEAST_TRIALS:
        there = (
            f"there {'is' if num == 1 else 'are'} {plain_number(num)}" if num else "there is none"
        )
        return (
            f"No importances: they take at least {LEAST_TRIALS} trials that have shown a "
            f"value; {there}."
        )
    at = "at the end of the run" if found.share >= 1 else f"at {100 * found.share:.3g} % of the run"
    over = f"the values of {count_text(num, 'trial')} {at}, the furthest that all of them have come"
    if found.shares:
        left = [name for name in record.parameters if name not in found.shares]
        out = (
            f" Left out, for not all of them have it: {short(', '.join(left), 300)}."
            if left
            else ""
        )
        return (
            f"Share of the spread in {title_of(record.metric)} that each explains, estimated "
            f"from {over}.{out}"
        )
    if found.is_flat:
        return f"No importances: there is no spread to explain in {over}: all are the same."
    why = f" ({short(found.failure, 300)})" if found.failure else ""
    return f"No importances: none could be estimated from {over}{why}."


# ---- trials


def _trial_rows(record: StudyRecord) -> list[TrialRow]:
    best, names = record.find_best(), record.parameters
    return [
        _trial_row(
            trial, record.metric, names, is_best=best is not None and best.number == trial.number
        )
        for trial in record.ranked[:MOST_TRIALS]
    ]


def _trial_row(trial: TrialResult, metric: str, names: Sequence[str], *, is_best: bool) -> TrialRow:
    epochs = trial.rungs[-1].epoch if trial.rungs else 0.0
    value = trial.finite_value
    reason = trial.reason or ""
    words = "not a number" if value is None and trial.rungs else NOTHING
    return TrialRow(
        number=trial.number,
        params=tuple(
            _brief(trial.params[name]) if name in trial.params else NOTHING for name in names
        ),
        value=words if value is None else figure_text(metric, value),
        epochs=plain_number(epochs) if epochs == epochs else NOTHING,
        state={"pruned": "cut", "running": "not ended"}.get(trial.state, trial.state),
        reason=reason if trial.state != "failed" else short(reason, _LONGEST),
        is_best=is_best,
    )


def _failures(record: StudyRecord) -> list[tuple[str, str]]:
    """Returns reasons and the trials that they ended; then the failures of workers."""
    by_reason: dict[str, list[int]] = {}
    for trial in record.trials:
        if trial.state == "failed":
            by_reason.setdefault(trial.reason or "no reason was recorded", []).append(trial.number)
    rows = [
        (f"{'trial' if len(numbers) == 1 else 'trials'} {_listed(numbers)}", reason)
        for reason, numbers in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]
    for event in record.losses:
        trials = [found for found in sequence(event.get("trials")) if isinstance(found, int)]
        held = (
            f", with {'trial' if len(trials) == 1 else 'trials'} {_listed(trials)}"
            if trials
            else ""
        )
        rows.append(
            (
                f"worker {event.get('worker', '?')} lost{held}",
                str(event.get("reason") or "no reason given"),
            )
        )
    return rows


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:20]))
    return shown + (f" and {len(numbers) - 20} more" if len(numbers) > 20 else "")


def _brief(value: Any) -> str:
    figure = number(value)
    return short(setting_text(value, "none"), _LONGEST) if figure is None else plain_number(figure)
