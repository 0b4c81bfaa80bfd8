"""The figures of a classifier, whatever it classifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from volano.apps.application import Table
from volano.data.sources import TEST, TRAIN, VALID
from volano.record.format import NOTHING
from volano.report.verdict import Score, interval_text, wilson_interval

# Classes of which each is named with its counts.
_MOST_CLASSES_NAMED = 8
_PARTS = {TRAIN: "to train on", VALID: "to evaluate on meanwhile", TEST: "to test on"}


def classes_in_words(
    what: str,
    classes: Sequence[str],
    parts: Mapping[str, Any],
    *,
    is_held_out: bool,
) -> str:
    """Puts into words what was read: how many examples of each split, and of each class.

    Args:
        what: what they are ("images").
        classes: the class names; none of a source without.
        parts: the examples by split, with the class of each as ``labels``.
        is_held_out: whether Volano split the test examples off.
    """
    words = {**_PARTS, TEST: "held out"} if is_held_out else _PARTS
    read = " and ".join(f"{len(part.labels):,} {words[split]}" for split, part in parts.items())
    if not classes:
        return f"{what}: {read}"
    counts = [np.bincount(part.labels, minlength=len(classes)).tolist() for part in parts.values()]
    if len(classes) > _MOST_CLASSES_NAMED:
        each = sorted((counts[0][label], name) for label, name in enumerate(classes))
        (least, rarest), (most, commonest) = each[0], each[-1]
        return (
            f"{what}: {read}, of {len(classes):,} classes with {least:,} ({rarest}) to {most:,} "
            f"({commonest}) to train on"
        )
    named = ", ".join(
        f"{name} {' + '.join(f'{one[label]:,}' for one in counts)}"
        for label, name in enumerate(classes)
    )
    return f"{what}: {read}, of {len(classes)} classes: {named}"


def classification_scores(
    logits: Tensor, labels: Tensor, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns accuracy with its 95 % interval, the accuracy of always naming the commonest class,
    per-class precision, recall and F1, and the confusion matrix (rows: true class, columns:
    predicted). Logits [N, classes], labels int64 [N]."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    every = np.arange(len(classes))
    columns: Any = precision_recall_fscore_support(true, predicted, labels=every, zero_division=0)  # pyright: ignore[reportArgumentType]
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(classes, *columns, strict=True)
    }
    accuracy = float((predicted == true).mean())
    return {
        "num_examples": len(true),
        "accuracy": accuracy,
        "accuracy_interval": list(wilson_interval(accuracy, len(true))),
        "baseline_accuracy": float(np.bincount(true, minlength=len(classes)).max() / len(true)),
        "per_class": per_class,
        "confusion": confusion_matrix(true, predicted, labels=every).tolist(),
        "classes": list(classes),
    }


def final_figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of a classifier's final test for ``run.json``."""
    return {
        "test_accuracy": scores["accuracy"],
        "test_accuracy_interval": scores["accuracy_interval"],
        "baseline_accuracy": scores["baseline_accuracy"],
        "num_test": scores["num_examples"],
    }


def accuracy_score(scores: Mapping[str, Any]) -> Score:
    """Returns the figure by which a classifier is judged."""
    return Score(
        name="test accuracy",
        value=scores["accuracy"],
        trivial={"always the commonest class": scores["baseline_accuracy"]},
        num_examples=scores["num_examples"],
    )


def accuracy_in_words(metrics: Mapping[str, Any], what: str) -> str:
    """Puts the final figures into words, with the interval and the trivial answer; ``what`` names
    the test examples."""
    accuracy, num = metrics["test_accuracy"], metrics["num_test"]
    return (
        f"test accuracy {accuracy:.4f} on {num:,} {what}   ({interval_text(accuracy, num)}; always "
        f"the commonest class: {metrics['baseline_accuracy']:.4f})"
    )


def per_class_table(result: Mapping[str, Any], what: str) -> list[str | Table]:
    """Puts scores, with their ``origin``, into a table of precision, recall and F1, and a sentence
    of the accuracy."""
    figures = ("precision", "recall", "f1")  # of a class without examples they are nothing
    rows = [
        (
            name,
            row["support"],
            *(f"{row[one]:.4f}" if row["support"] else NOTHING for one in figures),
        )
        for name, row in result["per_class"].items()
    ]
    title = f"{result['num_examples']:,} {what} of {result['origin']}"
    accuracy = (
        f"accuracy {result['accuracy']:.4f}   "
        f"({interval_text(result['accuracy'], result['num_examples'])}; always the commonest "
        f"class: {result['baseline_accuracy']:.4f})"
    )
    columns = ("class", what, "precision", "recall", "F1")
    return [Table(title=title, columns=columns, rows=rows, right=(1, 2, 3, 4)), accuracy]
