"""The page of one run, put together and written."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volano.errors import PlanError, RunError, UsageError
from volano.plan.explanation import Explanation
from volano.record import files
from volano.record.format import NOTHING, short
from volano.record.json_values import mapping
from volano.record.read_run import RunRecord, read_run
from volano.record.run_folder import PAGE
from volano.report.classification import classification_of, hardest_of
from volano.report.curves import curves_of
from volano.report.experiment import (
    knobs_of,
    machine_rows,
    network_shown,
    notices_of,
    phases_of,
    target_in_words,
    task_rows,
    task_sentence,
)
from volano.report.figures import facts_of, figures_of
from volano.report.media import read_media
from volano.report.planning import PlanningFigures, read_planning
from volano.report.targets.figures import targets_of
from volano.report.text import compression_of, previews_of, text_figures
from volano.report.verdict import Verdict
from volano.report.video import clips_of, nearest_of, prediction_charts, self_test_of

MODEL_WORDS = {
    "image": "image classifier", "text": "text model", "video": "video model",
    "classify": "text classifier", "causal": "language model", "classify-clips": "clip classifier",
}  # fmt: skip
_CLASSIFIERS = {"text": "text classifier", "video": "clip classifier"}
_MOST_ROWS = 100  # of a list of examples or steps; the rest stands in its file
# What a piece of a folder that other hands have changed can do to the code that shows it.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    PlanError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass
class Pieces:
    """The collector of what can be shown, in ``found``, and in words of what cannot, in
    ``missing``."""

    missing: list[str]
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[], Any], *, otherwise: Any = None) -> None:
        """Adds the result of ``make``; ``otherwise`` if the run's files do not allow it."""
        try:
            self.found[name] = make()
        except _DAMAGE as error:
            self.found[name] = otherwise
            reason = (
                str(error)
                if type(error) in (PlanError, ValueError)
                else f"{type(error).__name__}: {error}"
            )
            self.missing.append(f"{name.replace('_', ' ')} cannot be shown: {reason}")


def _planning_of(record: RunRecord) -> PlanningFigures | None:
    return read_planning(Explanation.from_json(record.explanation)) if record.explanation else None


# The pieces of a page: name, how it is read, and what stands for it if the files do not allow it.
_PIECES: tuple[tuple[str, Callable[[RunRecord], Any], Any], ...] = (
    ("figures", figures_of, ()),
    ("verdict", lambda record: Verdict.of_json(record.run.get("verdict")), None),
    ("facts", facts_of, ()),
    ("task_in_words", lambda record: (task_sentence(record), task_rows(record)), ("", [])),
    ("curves", curves_of, ()),
    ("classification", classification_of, None),
    ("targets", targets_of, None),
    ("top_losses", hardest_of, ([], None)),
    ("augmented", lambda record: read_media(record.path / "augmented.png"), None),
    ("compression", lambda record: (compression_of(record), text_figures(record)), ([], [])),
    ("previews", previews_of, ()),
    ("predicted", lambda record: read_media(record.path / "predictions.png"), None),
    ("prediction_charts", prediction_charts, ()),
    ("self_test", self_test_of, None),
    ("nearest", nearest_of, ()),
    ("plan", knobs_of, ()),
    ("planning", _planning_of, None),
    ("machine", machine_rows, ()),
    ("phases", phases_of, ()),
)


def write_page(run: str | Path, out: str | Path | None = None) -> Path:
    """Writes a run's page, ``report.html`` in its folder unless another is named, and returns its
    path.

    Raises:
        UsageError: it is not a run's folder, or ``out`` is a folder.
        RunError: the page cannot be written.
    """
    record = read_run(run)
    if out is not None:
        files.check_out(Path(out))
    return save_page(render_page(record), Path(out) if out is not None else record.path / PAGE)


def render_page(record: RunRecord) -> str:
    """Returns the page as HTML; everything that it shows stands in it."""
    pieces = Pieces(missing=list(record.missing))
    for name, read, otherwise in _PIECES:
        pieces.add(name, functools.partial(read, record), otherwise=otherwise)
    pieces.add("clips", lambda: clips_of(record, pieces.missing), otherwise=())
    planning = pieces.found["planning"]
    planned = () if planning is None else planning.network_facts
    pieces.add("network", lambda: network_shown(record, planned))
    return render(
        "run.html.j2",
        record=record,
        kind=target_in_words(record) or _kind_in_words(record),
        state=_state(record),
        notices=notices_of(record),
        quarantine=[_quarantine_row(line) for line in record.quarantine[:_MOST_ROWS]],
        num_quarantined=len(record.quarantine),
        numerics=[_numerics_row(line) for line in record.numerics[:_MOST_ROWS]],
        num_numerics=len(record.numerics),
        missing=pieces.missing,
        **pieces.found,
    )


def render(template: str, **context: Any) -> str:
    """Fills in a template of this folder; every text is escaped."""
    return _templates().get_template(template).render(**context)


@functools.cache
def _templates() -> Any:
    """Returns Jinja2's environment; templates are compiled once in a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("volano.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def save_page(text: str, path: Path) -> Path:
    """Writes a page so that a reader sees the old or the new one, never a part.

    Raises:
        UsageError: the path is a folder.
        RunError: the page cannot be written.
    """
    if path.is_dir() and not path.is_symlink():
        raise UsageError(
            "`out` of a report must name a file",
            got=f"{path}, which is a folder",
            remedy=f"Give `out` as {path / 'report.html'}",
        )
    try:
        files.write_bytes(path, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise RunError(
            "The report's file must be writable",
            got=f"{path}: {error.strerror}",
            remedy="Name another file with `out`",
        ) from error
    return path


def _kind_in_words(record: RunRecord) -> str:
    goal = mapping(record.run.get("source")).get("goal")
    kinds = {**MODEL_WORDS, **_CLASSIFIERS} if goal == "classes" else MODEL_WORDS
    return kinds.get(record.kind, str(record.run.get("name") or "task"))


def _state(record: RunRecord) -> str:
    """Returns one sentence on a run that is not finished; empty for one that is."""
    reached = f"It stands at step {record.run.get('step')} of {record.run.get('num_steps')}."
    if record.status == "finished":
        return ""
    if record.status == "failed":
        return f"This run failed: {record.run.get('reason') or 'no reason was recorded'}"
    if record.status == "stopped":
        return f"This run was stopped before its end. {reached} Final figures are not made yet."
    return (
        "This run had not ended when this page was made; figures and curves show how far it "
        "had come."
    )


def _quarantine_row(line: Mapping[str, Any]) -> tuple[str, str]:
    where = line.get("path") or f"example {line.get('index', '?')} of {line.get('set', 'data')}"
    return str(where), str(line.get("reason", "no reason was recorded"))


def _numerics_row(line: Mapping[str, Any]) -> tuple[str, ...]:
    examples = line.get("examples")
    listed = (
        ", ".join(map(str, examples)) if isinstance(examples, list) else str(examples or NOTHING)
    )
    words = (str(line.get(name) or NOTHING) for name in ("reason", "module", "action"))
    return str(line.get("step", "?")), *words, short(listed, 200)
