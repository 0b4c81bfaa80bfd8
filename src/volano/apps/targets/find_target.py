"""The target of data that was read, and of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from volano.apps.targets.classes import OneClass
from volano.apps.targets.labels import Labels
from volano.apps.targets.numbers import Numbers
from volano.apps.targets.target import Target
from volano.data.sources import CLASSES, LABELS, NUMBERS
from volano.errors import CheckpointError

_TARGETS: tuple[type[Target], ...] = (OneClass, Labels, Numbers)


def target_of_data(train: Any, columns: tuple[str, ...]) -> Target:
    """Returns the target for labelled images or texts to train on; ``columns``: those asked for."""
    if train.kind == NUMBERS:
        return Numbers.of(train.classes, columns, train.labels)
    kind = Labels if train.kind == LABELS else OneClass
    return kind(names=train.classes, columns=columns)


def target_class(kind: str | None) -> type[Target]:
    """Returns the target of a kind; of classes if it is not known yet."""
    return next((one for one in _TARGETS if one.kind == kind), OneClass)


def goal_of_target(options: Mapping[str, Any]) -> tuple[str, str]:
    """Returns by which figure trainings with options are compared, and ``"minimize"`` or
    ``"maximize"``."""
    target = target_class(options.get("target"))
    return target.figure, "maximize" if target.more_is_better else "minimize"


def figures_in_words(metrics: Mapping[str, Any], what: str) -> list[str]:
    """Puts the final figures of a run into words; see ``Target.summary``, and
    ``LinearProbe.figures``."""
    found = next((one for one in _TARGETS if one.final in metrics), OneClass)
    lines = found.summary(metrics, what)
    if "cross_validated" in metrics:
        lines.append(
            f"{found.head_figure} of a linear head, cross-validated on the training examples: "
            f"{metrics['cross_validated']:.3f} +- {metrics['cross_validated_spread']:.3f}"
        )
    return lines


def target_of_run(names: Sequence[str], value: Mapping[str, Any] | None) -> Target:
    """Returns the target that a run's folder describes.

    Args:
        names: names of the outputs.
        value: what ``Target.to_json`` gave, which others may have changed.

    Raises:
        CheckpointError: it describes none.
    """
    if value is None:
        return OneClass(names=tuple(names))
    try:
        columns = tuple(map(str, value["columns"]))
        common: dict[str, Any] = {"names": tuple(names), "columns": columns}
        if value["kind"] in (CLASSES, LABELS):
            return target_class(value["kind"])(**common)
        if value["kind"] != NUMBERS:
            raise ValueError(f"kind {value['kind']!r}")
        means, deviations = (tuple(map(float, value[n])) for n in ("means", "deviations"))
        if {len(means), len(deviations)} != {len(names)} or not all(
            map(math.isfinite, (*means, *deviations))
        ):
            raise ValueError(f"{len(names)} names, means {means}, deviations {deviations}")
        return Numbers(**common, means=means, deviations=deviations)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            "A run must describe its target: classes, labels, or numbers with means and deviations",
            got=error,
        ) from error
