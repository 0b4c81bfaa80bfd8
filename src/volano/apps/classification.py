"""The figures of a classifier, whatever it classifies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from volano.apps.application import Table


def classification_scores(
    logits: Tensor, labels: Tensor, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Returns accuracy, the accuracy of always naming the commonest class, per-class precision,
    recall and F1, and the confusion matrix (rows: true class, columns: predicted). Logits [N,
    classes], labels int64 [N]."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    every = np.arange(len(classes))
    columns: Any = precision_recall_fscore_support(true, predicted, labels=every, zero_division=0)  # pyright: ignore[reportArgumentType]
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(classes, *columns, strict=True)
    }
    return {
        "num_examples": len(true),
        "accuracy": float((predicted == true).mean()),
        "baseline_accuracy": float(np.bincount(true, minlength=len(classes)).max() / len(true)),
        "per_class": per_class,
        "confusion": confusion_matrix(true, predicted, labels=every).tolist(),
        "classes": list(classes),
    }


def per_class_table(result: Mapping[str, Any], what: str) -> list[str | Table]:
    """Puts scores, with their ``origin``, into a table of precision, recall and F1, and a sentence
    of the accuracy."""
    rows = [
        (
            name,
            row["support"],
            f"{row['precision']:.4f}",
            f"{row['recall']:.4f}",
            f"{row['f1']:.4f}",
        )
        for name, row in result["per_class"].items()
    ]
    title = f"{result['num_examples']:,} {what} of {result['origin']}"
    accuracy = (
        f"accuracy {result['accuracy']:.4f}   (always the commonest class: "
        f"{result['baseline_accuracy']:.4f})"
    )
    return [
        Table(
            title=title,
            columns=("class", what, "precision", "recall", "F1"),
            rows=rows,
            right=(1, 2, 3, 4),
        ),
        accuracy,
    ]
