"""Judges a finished run: from its figures to good news or not, with the reasons and what to do.

Pure: no torch, no files. A figure alone says little; what it is worth follows from the trivial
answers, from how many examples it was taken over, and from how the last evaluations went.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from volano.record.json_values import mapping, number, sequence
from volano.record.shell import command, is_command

# Two-sided 95 % of the normal distribution.
_Z = 1.959964
# Fewer steps than these are no training: a warm-up alone is longer.
LEAST_STEPS = 30
# A run of fewer steps is advised to take the time that so many need.
_ENOUGH_STEPS = 100
# Of the loss, between the last two evaluations: less is hardly worth more minutes.
_STILL_IMPROVING = 0.02
# Points of accuracy; a wider interval says little of how good a model is.
_WIDE_INTERVAL = 0.1


@dataclass(frozen=True, kw_only=True)
class Score:
    """The figure by which a run is judged.

    Attributes:
        name: what it is, in words.
        value: the figure of the run.
        trivial: trivial answers in words, and their figures.
        is_more_better: whether a larger figure is the better one.
        num_examples: test examples of which the figure is a share; None if it is no share.
        interval: its 95 % interval, if it is no share of ``num_examples`` but an average of them.
        wide: width of the interval from which the examples are few.
        digits, unit: how it is written.
        is_solved: whether the network was solved before the first step, so that few steps are
            enough.
    """

    name: str
    value: float
    trivial: Mapping[str, float]
    is_more_better: bool = True
    num_examples: int | None = None
    interval: tuple[float, float] | None = None
    wide: float = _WIDE_INTERVAL
    digits: int = 4
    unit: str = ""
    is_solved: bool = False

    def text(self, value: float) -> str:
        """Writes a figure of this kind."""
        return f"{value:.{self.digits}f}{self.unit}"

    def range(self, bounds: tuple[float, float]) -> str:
        """Writes two bounds of the figure."""
        return f"{self.text(bounds[0])} to {self.text(bounds[1])}"

    def bounds(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of the figure, if it is known."""
        if self.interval is not None:
            return self.interval
        return wilson_interval(self.value, self.num_examples) if self.num_examples else None

    def beats(self, other: float) -> bool:
        """Returns whether the run's figure is better than another."""
        return self.value > other if self.is_more_better else self.value < other


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        is_good: whether it is good news.
        reasons: the reasons in words, the weightiest first.
        interval: the 95 % interval of the figure, if it is known.
        wants_more: whether a longer training is likely to be better.
        longer: the command of a longer training; None if none is known.
    """

    is_good: bool
    reasons: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    wants_more: bool = False
    longer: str | None = None

    @property
    def is_good_news(self) -> bool:
        """Returns whether there is something good to say."""
        return self.is_good and bool(self.reasons)

    def lines(self) -> list[str]:
        """Puts the verdict into words."""
        start = "finished" if self.is_good else "finished, but"
        first, *others = self.reasons or ("nothing to compare it with",)
        return [f"{start}: {first}", *(f"  {reason}" for reason in others)]

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict for ``run.json``."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def of_json(cls, value: Any) -> Verdict | None:
        """Reads what :meth:`to_json` gave, which others may have changed; None if there is none."""
        found = mapping(value)
        if not found:
            return None
        longer = found.get("longer")  # shown to be pasted
        is_one = isinstance(longer, str) and is_command(longer, "volano", "train")
        return cls(
            is_good=found.get("is_good") is True,
            reasons=tuple(map(str, sequence(found.get("reasons")))),
            wants_more=found.get("wants_more") is True,
            longer=longer if is_one else None,
        )


def wilson_interval(share: float, num_examples: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share of ``num_examples`` (Wilson 1927, JASA 22:209); unlike
    the normal one it stays within 0 and 1 and holds for few examples."""
    square = _Z * _Z / num_examples
    centre = (share + square / 2) / (1 + square)
    half = (
        _Z
        / (1 + square)
        * math.sqrt(share * (1 - share) / num_examples + square / num_examples / 4)
    )
    return max(0.0, centre - half), min(1.0, centre + half)


def normal_interval(
    value: float, deviation: float, *, at_most: float = math.inf
) -> tuple[float, float]:
    """Returns the 95 % interval of a figure of normal errors with that standard deviation; it is
    not below 0, nor above ``at_most``."""
    return max(0.0, value - _Z * deviation), min(at_most, value + _Z * deviation)


def interval_text(share: float, num_examples: int) -> str:
    """Writes the interval of a share: ``95 %: 0.9735 to 0.9980``."""
    low, high = wilson_interval(share, num_examples)
    return f"95 %: {low:.4f} to {high:.4f}"


def judge(*, num_steps: int, losses: Sequence[float] = (), score: Score | None = None) -> Verdict:
    """Judges a run that has finished.

    Args:
        num_steps: optimizer steps of the run.
        losses: its validation losses, in the order of the evaluations.
        score: the figure of its final test; None if it has none.
    """
    is_solved = score is not None and score.is_solved
    found = [
        None if is_solved else _of_steps(num_steps),
        _of_score(score),
        _of_losses(losses, score),
    ]
    known = [one for one in found if one is not None]
    interval = None
    if score is not None and math.isfinite(score.value):
        interval = score.bounds()
        is_wide = interval is not None and interval[1] - interval[0] > score.wide
        if interval is not None and is_wide and _trivial_within(score, interval) is None:
            few = f"{score.num_examples:,} test examples are few: {score.name}, 95 % interval "
            known.append(_Finding(text=few + score.range(interval)))
    return Verdict(
        is_good=not any(one.is_bad for one in known),
        # Bad news first.
        reasons=tuple(one.text for one in sorted(known, key=lambda one: not one.is_bad)),
        interval=interval,
        wants_more=any(one.wants_more for one in known),
    )


def longer_command(again: Any, *, seconds: Mapping[str, Any], num_steps: int) -> str | None:
    """Returns the command that trains for longer, or None if it is not known.

    Args:
        again: ``words`` of the command without its length, and ``minutes`` or ``epochs``, its
            length.
        seconds: the seconds of the run by phase, with ``train`` and ``total``.
        num_steps: optimizer steps of the run.
    """
    known = mapping(again)
    words = [str(word) for word in sequence(known.get("words"))]
    epochs, minutes = number(known.get("epochs")), number(known.get("minutes"))
    if not words or (epochs is None and minutes is None):
        return None
    if epochs is not None:
        return command([*words, "--epochs", f"{2 * epochs:g}"])
    assert minutes is not None
    total, train = number(seconds.get("total")) or 0.0, number(seconds.get("train")) or 0.0
    enough = (total - train + train / max(1, num_steps) * _ENOUGH_STEPS) / 60
    longer = max(2 * minutes, enough if num_steps < LEAST_STEPS else 0.0)
    # Whole minutes, tenths below two.
    text = f"{math.ceil(longer)}" if longer > 2 else f"{math.ceil(10 * longer) / 10:g}"
    return command([*words, "--minutes", text])


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """A reason, and what it says of the run."""

    text: str
    is_bad: bool = False
    wants_more: bool = False


def _of_steps(num_steps: int) -> _Finding | None:
    if num_steps >= LEAST_STEPS:
        return None
    count = "one step was" if num_steps == 1 else f"only {num_steps} steps were"
    return _Finding(text=f"{count} trained, too few to learn from", is_bad=True, wants_more=True)


def _of_score(score: Score | None) -> _Finding | None:
    if score is None:
        return None
    if not math.isfinite(score.value):
        return _Finding(text=f"{score.name} is not a number", is_bad=True)
    best = _best_trivial(score)
    if best is None:
        return None
    name, value = best
    trivial, bounds = f"{name} ({score.text(value)})", score.bounds()
    if bounds is not None and _trivial_within(score, bounds) is not None:
        text = (
            f"{score.num_examples:,} test examples are too few to tell {score.name} from {trivial}"
        )
        return _Finding(
            text=f"{text}: 95 % interval {score.range(bounds)}", is_bad=True, wants_more=True
        )
    if score.beats(value):
        return _Finding(text=f"better than {trivial}")
    return _Finding(text=f"no better than {trivial}", is_bad=True, wants_more=True)


def _best_trivial(score: Score) -> tuple[str, float] | None:
    """Returns the best of the trivial answers and its figure; None if there is none."""
    known = {name: value for name, value in score.trivial.items() if math.isfinite(value)}
    return (max if score.is_more_better else min)(
        known.items(), key=lambda item: item[1], default=None
    )


def _trivial_within(score: Score, bounds: tuple[float, float]) -> float | None:
    """Returns the figure of the best trivial answer if it lies within bounds, else None."""
    best = _best_trivial(score)
    return None if best is None or not bounds[0] <= best[1] <= bounds[1] else best[1]


def _of_losses(losses: Sequence[float], score: Score | None) -> _Finding | None:
    if len(losses) < 2:
        return None
    first, before, last = losses[0], losses[-2], losses[-1]
    if not math.isfinite(last):
        return _Finding(text="the validation loss is not a number", is_bad=True)
    if last > first:
        text = f"the validation loss has risen, from {first:.4g} at first to {last:.4g}"
        return _Finding(text=text, is_bad=score is None)
    fallen = (before - last) / max(abs(before), 1e-12)
    if not fallen > max(_STILL_IMPROVING, _noise_of(score)):
        text = f"the validation loss has fallen, from {first:.4g} at first to {last:.4g}"
        return _Finding(text=text) if score is None and last < first else None
    text = f"still improving: the last evaluation's loss is {fallen:.0%} below the one before"
    return _Finding(text=text, wants_more=True)


def _noise_of(score: Score | None) -> float:
    """Returns by how much a loss changes by chance: it stands on the examples that are wrong."""
    if score is None or not score.num_examples or score.interval is not None:
        return 0.0
    return 1 / math.sqrt(max(1.0, score.num_examples * (1 - score.value)))
