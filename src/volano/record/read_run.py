"""A run's folder as a report reads it: whatever is there, and in words what is not.

A report is also made of a run that failed, that was killed, or whose files a full disk cut short.
So nothing here raises for a piece that is missing or damaged; only a folder that is no run's is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.record.files import another_programs, no_folder_of
from volano.record.json_values import mapping, read_lines, read_object

_SCHEMA_VERSION = 1  # of run.json, see record/run_folder.py
# What the final test of a run of each application leaves.
_EXPECTED = {
    "image": ("eval-test.json", "top-losses.png", "augmented.png"),
    "text": ("eval-test.json",),
    "video": ("eval-test.json", "clips-real.gif", "clips-generated.gif"),
}


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of a run's folder. Every mapping may be empty.

    Attributes:
        path: the folder.
        run: ``run.json``.
        task: ``task.json``.
        plan: ``plan.json``.
        explanation: ``explanation.json``, if the run was planned.
        logs: lines of ``metrics.jsonl`` about training steps, in their order.
        evaluations: its lines about the validation set.
        quarantine: lines of ``quarantine.jsonl``.
        previews: lines of ``previews.jsonl``.
        numerics: lines of ``numerics.jsonl``: skipped steps.
        scores: ``eval-test.json``.
        missing: the things that are not there or cannot be read, one sentence each.
    """

    path: Path
    run: Mapping[str, Any]
    task: Mapping[str, Any]
    plan: Mapping[str, Any]
    explanation: Mapping[str, Any]
    logs: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    quarantine: tuple[Mapping[str, Any], ...]
    previews: tuple[Mapping[str, Any], ...]
    numerics: tuple[Mapping[str, Any], ...]
    scores: Mapping[str, Any]
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name or str(self.path)

    @property
    def kind(self) -> str:
        """The application, or ``"python"`` or ``"reference"`` for a task of a person's own."""
        return str(mapping(self.run.get("source")).get("kind") or "python")

    @property
    def status(self) -> str:
        """The status: ``"finished"``, ``"stopped"``, ``"failed"``, ``"running"``, ``"starting"`` or
        ``"unknown"``."""
        return str(self.run.get("status") or "unknown")

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The final figures."""
        return mapping(self.run.get("metrics"))


def read_run(path: str | Path) -> RunRecord:
    """Reads a run's folder.

    Raises:
        UsageError: it is not one.
    """
    folder = Path(path)
    if not (folder / "run.json").is_file():
        raise no_folder_of(folder, "run.json")
    missing: list[str] = []
    run = read_object(folder / "run.json", missing)
    if run and "schema_version" not in run:
        raise another_programs(folder, "run.json")
    if run and run.get("schema_version") != _SCHEMA_VERSION:
        missing.append(
            f"run.json is of schema version {run.get('schema_version')}; this page was made for "
            "version 1"
        )
    is_finished = run.get("status") == "finished"
    expected = _expected_of(mapping(run.get("source"))) if is_finished else ()
    task = read_object(folder / "task.json", missing)
    plan = read_object(folder / "plan.json", missing)
    explanation = read_object(folder / "explanation.json", missing, is_expected=False)
    scores = read_object(
        folder / "eval-test.json", missing, is_expected="eval-test.json" in expected
    )
    records = read_lines(folder / "metrics.jsonl", missing, is_expected=is_finished)
    pictures = [name for name in expected if not name.endswith(".json")]
    missing += [f"{name} is not there" for name in pictures if not (folder / name).is_file()]
    return RunRecord(
        path=folder,
        run=run,
        task=task,
        plan=plan,
        explanation=explanation,
        logs=tuple(record for record in records if "loss" in record),
        evaluations=tuple(
            record for record in records if any(str(name).startswith("valid_") for name in record)
        ),
        quarantine=read_lines(folder / "quarantine.jsonl", missing, is_expected=False),
        previews=read_lines(folder / "previews.jsonl", missing, is_expected=False),
        numerics=read_lines(folder / "numerics.jsonl", missing, is_expected=False),
        scores=scores,
        missing=tuple(missing),
    )


def _expected_of(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the files that a finished run of this source leaves."""
    tells_classes = source.get("kind") == "video" and source.get("goal") == "classes"
    return _EXPECTED.get("text" if tells_classes else str(source.get("kind")), ())
