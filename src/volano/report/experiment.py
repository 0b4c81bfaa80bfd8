"""Describes in words what was trained and how it was run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from volano.errors import PlanError
from volano.plan import Plan, semantics_of
from volano.plan.network import NetworkPart
from volano.record.format import NOTHING, bytes_text, count_text, seconds_text, short
from volano.record.json_values import mapping, number, sequence
from volano.record.read_run import RunRecord
from volano.record.run_folder import revisions_of
from volano.report.figures import device_name
from volano.report.planning import network_rows

_APPLICATIONS = {"image": "image classification", "text": "a text model", "video": "a video model"}
_CLASSIFICATIONS = {"text": "classification of texts", "video": "classification of clips"}
_TARGETS = {"labels": "multi-label classification of", "numbers": "regression from"}
_ROWS = (
    ("objective", "Objective"),
    ("optimizer", "Optimizer"),
    ("parameter_groups", "Parameter groups"),
    ("schedule", "Schedule"),
    ("augment", "Augmentation"),
    ("collate", "Collation"),
    ("clip_norm", "Gradient norm clipped at"),
    ("ema_decay", "Average of the weights, decay"),
    ("evaluate_every", "Evaluated every"),
    ("last_batch", "Last batch of an epoch"),
    ("seed", "Seed"),
    ("tolerance", "Tolerance"),
    ("digest", "Digest"),
)
_UNITS = {"st": "step", "ep": "epoch"}


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A knob of the plan. ``semantics`` is its class, ``baseline`` its value in plain eager
    PyTorch."""

    name: str
    value: str
    baseline: str
    semantics: str
    is_changed: bool


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the run: seconds, and percent of the whole."""

    name: str
    seconds: str
    percent: float


def task_sentence(record: RunRecord) -> str:
    """Returns the task in one or two sentences; empty if ``task.json`` has nothing to say."""
    task = record.task
    model, data = mapping(task.get("model")), mapping(task.get("data"))
    if not task:
        return ""
    valid = mapping(task.get("valid"))
    source = mapping(record.run.get("source"))
    is_classifier = source.get("goal") == "classes"
    names = {**_APPLICATIONS, **_CLASSIFICATIONS} if is_classifier else _APPLICATIONS
    named = target_in_words(record) or names.get(record.kind)
    what = f"{named.capitalize()}: " if named else ""
    origin = source.get("origin")
    examples = count_text(data.get("num_examples"), "example") + (
        f" of {origin}" if isinstance(origin, str) else ""
    )
    text = (
        f"{what}{model.get('class', 'a model')} with "
        f"{count_text(model.get('num_parameters'), 'parameter')}, "
        f"trained on {examples} for {_duration(record)} of "
        f"{count_text(task.get('batch_size'), 'example')}."
    )
    if valid:
        text += f" {count_text(valid.get('num_examples'), 'example')} kept apart to measure it."
    return text[:1].upper() + text[1:]


def target_in_words(record: RunRecord) -> str | None:
    """Returns what is predicted of images or texts, if it is not one of several classes."""
    words = _TARGETS.get(str(mapping(mapping(record.run.get("source")).get("dials")).get("target")))
    return f"{words} {record.kind}s" if words and record.kind in ("image", "text") else None


def task_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Returns name and value of the fields that the task fixes."""
    task, model = record.task, mapping(record.task.get("model"))
    rows = [("Model made by", str(model["made_by"]))] if model.get("made_by") else []
    rows += [(title, _tidy(task[name])) for name, title in _ROWS if task.get(name) is not None]
    options = mapping(mapping(record.run.get("source")).get("dials"))
    if options:
        chosen = ", ".join(
            f"{name} {value}" for name, value in options.items() if value is not None
        )
        rows.append(("Options", chosen))
    return [(title, short(value, 600)) for title, value in rows]


@dataclass(frozen=True, kw_only=True)
class NetworkShown:
    """The network as a run's page shows it: rows of parts (see ``planning.network_rows``), and in
    sentences what is frozen and what keeping its outputs saved."""

    rows: tuple[tuple[str, ...], ...]
    facts: tuple[str, ...]


def network_shown(record: RunRecord, planned: Sequence[str] = ()) -> NetworkShown | None:
    """Returns the network of a run; None if its folder does not say.

    Args:
        record: the run.
        planned: what the explanation says of frozen layers; of the last, what is predicted to be
            saved, the run's own measurement takes the place.
    """
    parts = sequence(record.run.get("network"))
    if not parts:
        return None
    rows = network_rows([NetworkPart(**mapping(part)) for part in parts])
    kept, facts = mapping(record.run.get("prefix")), list(planned)
    if kept:
        taken = count_text(kept.get("num_taken_up"), "example")
        saved = seconds_text(kept.get("saved_seconds"))
        facts = [*planned[:1], f"measured: that saved {saved}, with {taken} used again"]
    return NetworkShown(rows=rows, facts=tuple(facts))


def knobs_of(record: RunRecord) -> list[Knob]:
    """Returns the plan's knobs, first those that differ from plain eager PyTorch."""
    plan = record.plan
    baseline = Plan.baseline(str(plan.get("device", "cpu"))).to_json()
    knobs = []
    for name, value in plan.items():
        if name == "schema_version":
            continue
        usual = baseline.get(name)
        knobs.append(
            Knob(
                name=str(name), value=setting_text(value), baseline=setting_text(usual),
                semantics=_semantics(str(name)), is_changed=name in baseline and value != usual,
            )
        )  # fmt: skip
    return sorted(knobs, key=lambda knob: not knob.is_changed)


def setting_text(value: Any, nothing: str = NOTHING) -> str:
    """Returns a setting in words; ``nothing`` stands for None."""
    words = ((None, nothing), (True, "yes"), (False, "no"))
    return next((word for known, word in words if value is known), str(value))


def phases_of(record: RunRecord) -> list[Phase]:
    """Returns the phases of the run with their seconds, in order."""
    seconds = {name: number(value) for name, value in mapping(record.run.get("seconds")).items()}
    total = seconds.pop("total", None)
    known = {str(name): value for name, value in seconds.items() if value is not None}
    whole = max(total or 0.0, sum(known.values()))
    if not whole:
        return []
    rest = whole - sum(known.values())
    if rest > 0.01 * whole:
        known["other"] = rest
    return [
        Phase(name=n, seconds=seconds_text(v), percent=round(100 * v / whole, 2))
        for n, v in known.items()
    ]


def machine_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Returns rows about the machine and the versions."""
    machine, versions = mapping(record.run.get("machine")), mapping(record.run.get("versions"))
    rows = [
        ("Device", device_name(record)),
        (
            "Device memory",
            bytes_text(machine["device_memory"]) if number(machine.get("device_memory")) else None,
        ),
        ("Processor", machine.get("processor")),
        (
            "Cores, threads",
            f"{machine.get('num_cores')}, {machine.get('num_threads')}" if machine else None,
        ),
        ("System", machine.get("system")),
        ("Python", machine.get("python")),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        ),
    ]
    return [(title, str(value)) for title, value in rows if value]


def notices_of(record: RunRecord) -> list[str]:
    """Returns the notices for the user, as the run reported them."""
    return [str(notice) for notice in sequence(record.run.get("notices"))]


def _duration(record: RunRecord) -> str:
    revisions = revisions_of(record.run)
    task, last = record.task, revisions[-1] if revisions else {}
    # A list's values are not looked at when a folder is read.
    revised = number(last.get("num_steps"))
    steps = count_text(task.get("num_steps") if revised is None else int(revised), "step")
    match = re.fullmatch(r"([\d.]+)ep", str(task.get("duration", "")))
    return f"{count_text(float(match[1]), 'epoch')}, {steps}" if match else steps


def _tidy(value: Any) -> str:
    text = str(value)
    match = re.fullmatch(r"([\d.]+)(st|ep)", text)
    return count_text(float(match[1]), _UNITS[match[2]]) if match else text


def _semantics(knob: str) -> str:
    try:
        return semantics_of(knob)
    except PlanError:
        return "not known"
