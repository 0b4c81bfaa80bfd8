"""The report of a text run: bits per byte against the compressors, and previews written during
training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volano.record.format import figure_text, plain_number, printable, short
from volano.record.json_values import mapping, number
from volano.record.read_run import RunRecord

_MOST_PREVIEWS, _MOST_CHARACTERS = 12, 4000
# Bytes that are independent of each other cost eight bits each.
_RAW_BITS = 8.0


@dataclass(frozen=True, kw_only=True)
class ScoreBar:
    """A figure as a bar; ``percent`` is its length."""

    name: str
    value: str
    percent: float
    is_own: bool


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The model's output at a step: texts after their prompts, and other values as JSON."""

    step: str
    prompt: str
    text: str


def compression_of(record: RunRecord) -> list[ScoreBar]:
    """Returns bits per byte of the model and of the compressors, the best first."""
    own = number(record.scores.get("bits_per_byte"))
    if own is None:
        return []
    found = [("this model", own, True)]
    for name, value in mapping(record.scores.get("baselines")).items():
        bits = number(value)
        if bits is not None:
            found.append((f"{name}, after the training text", bits, False))
    longest = min(_RAW_BITS, max(bits for _, bits, _ in found))
    return [
        ScoreBar(
            name=name,
            value=f"{bits:.3f}",
            percent=round(min(100.0, 100 * bits / longest), 2),
            is_own=is_own,
        )
        for name, bits, is_own in sorted(found, key=lambda entry: entry[1])
    ]


def text_figures(record: RunRecord) -> list[tuple[str, str]]:
    """Returns the other figures of the test."""
    names = {
        "perplexity": "Perplexity per token",
        "bytes_per_token": "Bytes per token",
        "num_bytes": "Bytes of text",
    }
    return [
        (title, figure_text(name, record.scores[name]))
        for name, title in names.items()
        if name in record.scores
    ]


def previews_of(record: RunRecord) -> list[Preview]:
    """Returns the texts that the model wrote during training; of many, some from first to last."""
    found = [preview for line in record.previews for preview in _read(line)]
    if len(found) <= _MOST_PREVIEWS:
        return found
    stride = (len(found) - 1) / (_MOST_PREVIEWS - 1)
    return [found[round(place * stride)] for place in range(_MOST_PREVIEWS)]


def _read(line: Mapping[str, Any]) -> list[Preview]:
    step = number(line.get("step"))
    where = "" if step is None else f"step {plain_number(step)}"
    samples = line.get("samples")
    if isinstance(samples, list):
        return [_one(where, mapping(sample) or {"text": sample}) for sample in samples]
    return [_one(where, {name: value for name, value in line.items() if name != "step"})]


def _one(step: str, sample: Mapping[str, Any]) -> Preview:
    text = sample.get("text")
    if not isinstance(text, str):
        text = json.dumps({**sample}, indent=1, ensure_ascii=False, default=str)
        sample = {}
    prompt = sample.get("prompt")
    return Preview(
        step=step,
        prompt=printable(short(prompt, _MOST_CHARACTERS)) if isinstance(prompt, str) else "",
        text=printable(short(text, _MOST_CHARACTERS)),
    )
