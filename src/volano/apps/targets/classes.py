"""The target of one class of each example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.application import Table
from volano.apps.predictions import ClassPrediction, class_predictions
from volano.apps.targets.target import Target, numbers_of_parts
from volano.data.sources import CLASSES
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import HeadSolver, some_of_each
from volano.record.format import NOTHING
from volano.report import draw_confusion
from volano.report.verdict import Score, interval_text, wilson_interval
from volano.task import Loss

# Views cost a forward pass each; only images about which the network is unsure get them (see
# docs/log.md). With label smoothing of 0.1 no probability comes much above 0.9.
_SURE = 0.8
# Classes of which each is named with its counts.
_MOST_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class OneClass(Target):
    """The target of one of several classes: logits, of which the largest is the class."""

    kind: ClassVar[str] = CLASSES
    figure: ClassVar[str] = "accuracy"
    final: ClassVar[str] = "test_accuracy"
    picture: ClassVar[str] = "confusion matrix"

    def loss(self, outputs: Tensor, wanted: Tensor) -> Loss:
        """Implements :meth:`Target.loss`: the cross-entropy of labels int64 [N]."""
        accuracy = (outputs.detach().argmax(1) == wanted).float().mean()
        total = F.cross_entropy(outputs, wanted, reduction="sum")
        return Loss(total=total, weight=len(wanted), metrics={"accuracy": accuracy})

    def objective(self, of_classes: Callable[[nn.Module, Any], Loss]) -> Any:
        """Implements :meth:`Target.objective`: the application's own."""
        return of_classes

    def head_solver(self, *, is_balanced: bool = False) -> HeadSolver:
        return SoftmaxHead(num_classes=len(self.names), is_balanced=is_balanced)

    def rows_to_solve(self, labels: np.ndarray) -> np.ndarray:
        """Implements :meth:`Target.rows_to_solve`: the same number of each class."""
        return some_of_each(labels, len(self.names))

    def is_unsure(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(1).amax(1) < _SURE

    def predictions(
        self, outputs: Tensor, paths: Sequence[str], top_k: int
    ) -> list[ClassPrediction]:
        return class_predictions(outputs, paths, self.names, top_k)

    def about_predictions(self, rows: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
        return (("top_k", len(rows[0].top)),)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Implements :meth:`Target.losses`: the cross-entropy in nats."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def in_words(self, outputs: Tensor, label: Tensor) -> tuple[str, str, float | None]:
        probability, predicted = outputs.softmax(0).max(0)
        return self.names[int(label)], self.names[int(predicted)], float(probability)

    def data_in_words(self, what: str, parts: Mapping[str, Any], *, is_held_out: bool) -> str:
        """Implements :meth:`Target.data_in_words`: with the examples of each class; a source may
        have none."""
        read, _ = numbers_of_parts(what, parts, is_held_out=is_held_out)
        num = len(self.names)
        if not num:
            return read
        counts = [np.bincount(part.labels, minlength=num).tolist() for part in parts.values()]
        if num > _MOST_NAMED:
            each = sorted((counts[0][label], name) for label, name in enumerate(self.names))
            (least, rarest), (most, commonest) = each[0], each[-1]
            return (
                f"{read}, of {num:,} classes with {least:,} ({rarest}) to {most:,} ({commonest}) "
                "to train on"
            )
        named = ", ".join(
            f"{name} {' + '.join(f'{one[label]:,}' for one in counts)}"
            for label, name in enumerate(self.names)
        )
        return f"{read}, of {num} classes: {named}"

    def scores(self, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Returns accuracy with its 95 % interval, the accuracy of always naming the commonest
        class, per-class precision, recall and F1, and the confusion matrix (rows: true class,
        columns: predicted). Logits [N, classes], labels int64 [N]."""
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

        predicted, true = outputs.argmax(1).numpy(), labels.numpy()
        every = np.arange(len(self.names))
        options: Any = {"labels": every, "zero_division": 0}
        columns: Any = precision_recall_fscore_support(true, predicted, **options)
        per_class = {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
            for name, p, r, f, s in zip(self.names, *columns, strict=True)
        }
        accuracy = float((predicted == true).mean())
        commonest = np.bincount(true, minlength=len(self.names)).max()
        return {
            "num_examples": len(true),
            "accuracy": accuracy,
            "accuracy_interval": list(wilson_interval(accuracy, len(true))),
            "baseline_accuracy": float(commonest / len(true)),
            "per_class": per_class,
            "confusion": confusion_matrix(true, predicted, labels=every).tolist(),
            "classes": list(self.names),
        }

    def final_figures(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "test_accuracy": scores["accuracy"],
            "test_accuracy_interval": scores["accuracy_interval"],
            "baseline_accuracy": scores["baseline_accuracy"],
            "num_test": scores["num_examples"],
        }

    def score(self, scores: Mapping[str, Any]) -> Score:
        return Score(
            name="test accuracy",
            value=scores["accuracy"],
            trivial={"always the commonest class": scores["baseline_accuracy"]},
            num_examples=scores["num_examples"],
        )

    def tables(self, result: Mapping[str, Any], what: str) -> list[str | Table]:
        figures = ("precision", "recall", "f1")  # of a class without examples they are nothing
        rows = [
            (name, row["support"],
             *(f"{row[one]:.4f}" if row["support"] else NOTHING for one in figures))
            for name, row in result["per_class"].items()
        ]  # fmt: skip
        accuracy, num = result["accuracy"], result["num_examples"]
        columns = ("class", what, "precision", "recall", "F1")
        return [
            Table(
                title=f"{num:,} {what} of {result['origin']}", columns=columns, rows=rows,
                right=(1, 2, 3, 4),
            ),
            f"accuracy {accuracy:.4f}   {_beside(accuracy, num, result['baseline_accuracy'])}",
        ]  # fmt: skip

    @classmethod
    def summary(cls, metrics: Mapping[str, Any], what: str) -> list[str]:
        accuracy, num = metrics["test_accuracy"], metrics["num_test"]
        beside = _beside(accuracy, num, metrics["baseline_accuracy"])
        return [f"test accuracy {accuracy:.4f} on {num:,} {what}   {beside}"]

    def draw(self, scores: Mapping[str, Any], title: str, out: Path) -> None:
        title = f"{title}: accuracy {scores['accuracy']:.2%}"
        draw_confusion(scores["confusion"], scores["classes"], title, out)

    def to_json(self) -> dict[str, Any] | None:
        """Implements :meth:`Target.to_json`: the names say all, unless a column was asked for."""
        return super().to_json() if self.columns else None


def _beside(accuracy: float, num_examples: int, baseline: float) -> str:
    return f"({interval_text(accuracy, num_examples)}; always the commonest class: {baseline:.4f})"
