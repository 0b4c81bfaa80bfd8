"""Says when the ranks of a study's trials are noise: after a few steps, or where the best are no
further apart than chance."""

from __future__ import annotations

from collections.abc import Iterable

from volano.record.format import count_text
from volano.record.study import TrialResult
from volano.report.verdict import LEAST_STEPS, wilson_interval

# After fewer steps an optimizer has hardly begun.
_LEAST_FIRST_STEPS = 10
_MOST_NAMED = 3


def rank_notices(
    trials: Iterable[TrialResult], *, metric: str, direction: str, num_valid: int | None
) -> list[str]:
    """Returns in words why the ranks of trials say little; nothing if they can be trusted.

    Args:
        trials: the trials of a study.
        metric: by which they are compared.
        direction: ``"minimize"`` or ``"maximize"``.
        num_valid: the examples of an evaluation, if they are known.
    """
    shown = [trial for trial in trials if trial.rungs]
    if len(shown) < 2:
        return []
    said = []
    first = min(trial.rungs[0].step for trial in shown)
    whole = max(trial.rungs[-1].step for trial in shown)
    if whole < LEAST_STEPS:
        said.append(
            f"ranks are noise: whole trials have {count_text(whole, 'step')}, under {LEAST_STEPS}; "
            "give more minutes, or fewer trials"
        )
    elif first < _LEAST_FIRST_STEPS:
        said.append(
            f"ranks are noise at the first rung, after {count_text(first, 'step')}: give more "
            "minutes, or fewer rungs or trials"
        )
    return said + _too_close(shown, metric, direction, num_valid)


def _too_close(
    shown: list[TrialResult], metric: str, direction: str, num_valid: int | None
) -> list[str]:
    """An accuracy on so many examples has an interval, in which others than the best may lie."""
    ended = [trial for trial in shown if trial.state == "complete"]
    values = {trial.number: value for trial in ended if (value := trial.finite_value) is not None}
    if not num_valid or "accuracy" not in metric or direction != "maximize" or len(values) < 2:
        return []
    best = max(values, key=lambda number: (values[number], -number))
    if not 0.0 <= values[best] <= 1.0:
        return []
    low, _ = wilson_interval(values[best], num_valid)
    others = sorted(number for number, value in values.items() if number != best and value >= low)
    if not others:
        return []
    names = ", ".join(map(str, others[:_MOST_NAMED])) + ", ..." * (len(others) > _MOST_NAMED)
    return [
        f"{num_valid:,} examples are too few to tell the best trial ({best}) from {len(others):,} "
        f"others ({names}): their accuracies lie within its 95 % interval"
    ]
