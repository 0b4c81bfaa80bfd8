"""The final figures of a run, each next to its baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from volano.record.format import (
    bytes_text,
    capital,
    count_text,
    figure_text,
    plain_number,
    seconds_text,
    title_of,
)
from volano.record.json_values import mapping, number, numbers, sequence
from volano.record.read_run import RunRecord
from volano.report.verdict import wilson_interval

# Figures that are shown next to another one, not by themselves.
_BESIDE = frozenset(
    {
        "baseline_accuracy",
        "baseline_mae",
        "baseline_mean_average_precision",
        "baseline_micro_f1",
        "cross_validated_spread",
        "num_test",
        "num_test_bytes",
        "bits_per_byte_xz",
        "bits_per_byte_bz2",
        "psnr_baselines",
    }
)
# The figures that come first, if they exist.
_FIRST = (
    "test_accuracy",
    "test_mean_average_precision",
    "test_micro_f1",
    "test_macro_f1",
    "test_mae",
    "test_r2",
    "bits_per_byte",
    "perplexity",
    "psnr_first_frame",
    "frechet_ratio",
    "tokens_per_second",
)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure: its name, its value in words, and the value to compare it with."""

    name: str
    value: str
    beside: str = ""


def figures_of(record: RunRecord) -> list[Figure]:
    """Returns the final figures, the most telling first."""
    metrics = record.metrics
    return [
        Figure(
            name=capital(title_of(name)),
            value=figure_text(name, metrics[name]),
            beside=_beside(name, metrics),
        )
        for name in in_order(metrics)
        if name not in _BESIDE and number(metrics[name]) is not None
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Sorts names of figures, the most telling first."""
    known = list(names)
    return [name for name in _FIRST if name in known] + [
        name for name in known if name not in _FIRST
    ]


def facts_of(record: RunRecord) -> list[Figure]:
    """Returns the run's facts: steps, time, speed, memory, size."""
    steps = (
        f"{count_text(record.run.get('step'), 'step')} of "
        f"{count_text(record.run.get('num_steps'), 'step')}"
    )
    if record.run.get("step") == record.run.get("num_steps"):
        steps = count_text(record.run.get("num_steps"), "step")
    speeds = numbers([line.get("examples_per_second") for line in record.logs])
    memory = numbers([line.get("memory_bytes") for line in record.logs])
    seconds = number(mapping(record.run.get("seconds")).get("total"))
    parameters = number(mapping(record.task.get("model")).get("num_parameters"))
    speed = f"{plain_number(round(statistics.median(speeds)))} examples/s" if speeds else None
    facts = [
        ("Length", steps if record.run.get("num_steps") else None),
        ("Time", None if seconds is None else seconds_text(seconds)),
        ("Throughput", speed),
        ("Most memory", bytes_text(max(memory)) if memory else None),
        ("Parameters", None if parameters is None else plain_number(parameters)),
        ("Device", device_name(record)),
    ]
    return [Figure(name=name, value=value) for name, value in facts if value]


def device_name(record: RunRecord) -> str | None:
    """Returns the device with its name: ``cpu (AMD EPYC)``."""
    machine = mapping(record.run.get("machine"))
    device, name = machine.get("device"), machine.get("device_name")
    return None if not device else str(device) if name in (None, device) else f"{device} ({name})"


# A figure's trivial answer: its name, and what it is in words.
_TRIVIAL = {
    "test_mean_average_precision": ("baseline_mean_average_precision", "label frequencies"),
    "test_micro_f1": ("baseline_micro_f1", "always the commonest labels"),
    "test_mae": ("baseline_mae", "always the mean"),
}


def _beside_trivial(name: str, metrics: Mapping[str, Any]) -> str:
    trivial, words = _TRIVIAL[name]
    parts = [f"{words}: {figure_text(trivial, metrics.get(trivial))}"]
    ends = numbers(sequence(metrics.get(f"{name}_interval")))
    if len(ends) == 2:
        parts += [count_text(metrics.get("num_test"), "example")]
        parts.append(f"95 % interval {figure_text(name, ends[0])} to {figure_text(name, ends[1])}")
    return "; ".join(parts)


def _beside(name: str, metrics: Mapping[str, Any]) -> str:
    if name in _TRIVIAL:
        return _beside_trivial(name, metrics)
    if name == "cross_validated":
        spread = number(metrics.get(f"{name}_spread")) or 0.0
        return f"+- {spread:.3f}; a linear head of frozen features, on the training examples"
    if name == "test_accuracy":
        baseline, num_test = metrics.get("baseline_accuracy"), metrics.get("num_test")
        parts = (
            [f"always the commonest class: {figure_text('accuracy', baseline)}"]
            if number(baseline)
            else []
        )
        share, count = number(metrics[name]), number(num_test)
        if count:
            parts.append(count_text(count, "example"))
        if count and count > 0 and share is not None and 0 <= share <= 1:
            low, high = wilson_interval(share, int(count) or 1)
            parts.append(f"95 % interval {100 * low:.2f} to {100 * high:.2f} %")
        return "; ".join(parts)
    if name == "bits_per_byte":
        others = [(coder, number(metrics.get(f"bits_per_byte_{coder}"))) for coder in ("bz2", "xz")]
        return ", ".join(f"{coder} {value:.3f}" for coder, value in others if value is not None)
    if name == "psnr_first_frame":
        found = [
            (key, number(value)) for key, value in mapping(metrics.get("psnr_baselines")).items()
        ]
        return ", ".join(
            f"{title_of(str(key))} {value:.2f} dB" for key, value in found if value is not None
        )
    if name == "frechet_ratio":
        return "1 is as near to the test clips as the training clips are"
    return ""
