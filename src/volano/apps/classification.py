"""Figures of a classifier, whatever it classifies."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def classification_scores(logits: Tensor, labels: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, the accuracy of always naming the commonest class, per-class precision, recall and F1, and the
    confusion matrix (rows: true class, columns: predicted). Logits [N, classes], labels int64 [N]."""
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
