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
from volano.apps.classification import (
    accuracy_in_words,
    accuracy_score,
    classes_in_words,
    classification_scores,
    final_figures,
    per_class_table,
)
from volano.apps.predictions import ClassPrediction, class_predictions
from volano.apps.targets.target import Target
from volano.data.sources import CLASSES
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import HeadSolver, some_of_each
from volano.report import draw_confusion
from volano.report.verdict import Score
from volano.task import Loss

# Views cost a forward pass each; only images about which the network is unsure get them (see
# docs/log.md). With label smoothing of 0.1 no probability comes much above 0.9.
_SURE = 0.8


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
        """Implements :meth:`Target.head_solver`."""
        return SoftmaxHead(num_classes=len(self.names), is_balanced=is_balanced)

    def rows_to_solve(self, labels: np.ndarray) -> np.ndarray:
        """Implements :meth:`Target.rows_to_solve`: the same number of each class."""
        return some_of_each(labels, len(self.names))

    def is_unsure(self, outputs: Tensor) -> Tensor:
        """Implements :meth:`Target.is_unsure`."""
        return outputs.softmax(1).amax(1) < _SURE

    def predictions(
        self, outputs: Tensor, paths: Sequence[str], top_k: int
    ) -> list[ClassPrediction]:
        """Implements :meth:`Target.predictions`."""
        return class_predictions(outputs, paths, self.names, top_k)

    def about_predictions(self, rows: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
        """Implements :meth:`Target.about_predictions`."""
        return (("top_k", len(rows[0].top)),)

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Implements :meth:`Target.losses`: the cross-entropy in nats."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def in_words(self, outputs: Tensor, label: Tensor) -> tuple[str, str, float | None]:
        """Implements :meth:`Target.in_words`."""
        probability, predicted = outputs.softmax(0).max(0)
        return self.names[int(label)], self.names[int(predicted)], float(probability)

    def data_in_words(self, what: str, parts: Mapping[str, Any], *, is_held_out: bool) -> str:
        """Implements :meth:`Target.data_in_words`."""
        return classes_in_words(what, self.names, parts, is_held_out=is_held_out)

    def scores(self, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Implements :meth:`Target.scores`."""
        return classification_scores(outputs, labels, self.names)

    def final_figures(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Implements :meth:`Target.final_figures`."""
        return final_figures(scores)

    def score(self, scores: Mapping[str, Any]) -> Score:
        """Implements :meth:`Target.score`."""
        return accuracy_score(scores)

    def tables(self, result: Mapping[str, Any], what: str) -> list[str | Table]:
        """Implements :meth:`Target.tables`."""
        return per_class_table(result, what)

    @classmethod
    def summary(cls, metrics: Mapping[str, Any], what: str) -> list[str]:
        """Implements :meth:`Target.summary`."""
        return [accuracy_in_words(metrics, what)]

    def draw(self, scores: Mapping[str, Any], title: str, out: Path) -> None:
        """Implements :meth:`Target.draw`."""
        title = f"{title}: accuracy {scores['accuracy']:.2%}"
        draw_confusion(scores["confusion"], scores["classes"], title, out)

    def to_json(self) -> dict[str, Any] | None:
        """Implements :meth:`Target.to_json`: the names say all, unless a column was asked for."""
        return super().to_json() if self.columns else None
