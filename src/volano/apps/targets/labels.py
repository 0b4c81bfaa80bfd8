"""The target of any number of labels of each example: a yes or no for each.

Shapes: N examples, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from volano.apps.application import Table
from volano.apps.targets.target import Target, numbers_of_parts, resampled_deviation
from volano.data.sources import LABELS
from volano.errors import UsageError
from volano.pretrained.head_solvers import SigmoidHead, average_precisions
from volano.pretrained.linear_probe import HeadSolver
from volano.report.verdict import Score, normal_interval, wilson_interval
from volano.task import Loss

# The probability from which a label is named.
THRESHOLD = 0.5
_UNSURE = 0.3  # from the threshold
# Resamples for an interval, fewer of many examples and labels: so many cells in all.
_MOST_RESAMPLES, _LEAST_RESAMPLES, _MOST_CELLS = 200, 20, 1e7
_MOST_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class LabelsPrediction:
    """The labels of an example.

    Attributes:
        path: the path of the example, or its place among those given.
        labels: those that are likelier than not, the likeliest first.
        top: label and probability, as often as asked, the likeliest first.
    """

    path: str
    labels: tuple[str, ...]
    top: tuple[tuple[str, float], ...]

    @property
    def columns(self) -> Sequence[str]:
        """The path, the labels, then label and probability by rank."""
        ranks = range(1, len(self.top) + 1)
        return ["path", "labels", *(n for rank in ranks for n in (f"top{rank}", f"p{rank}"))]

    @property
    def cells(self) -> Sequence[Any]:
        """The values of :attr:`columns`."""
        return [self.path, ";".join(self.labels), *(value for pair in self.top for value in pair)]

    def to_json(self) -> dict[str, Any]:
        """The path, ``labels``, and ``top`` as a list of ``label`` and ``probability``."""
        return {
            "path": self.path,
            "labels": list(self.labels),
            "top": [{"label": name, "probability": p} for name, p in self.top],
        }


@dataclass(frozen=True, kw_only=True)
class Labels(Target):
    """The target of any number of labels: a logit of each, whose sigmoid is the probability."""

    kind: ClassVar[str] = LABELS
    figure: ClassVar[str] = "f1"
    head_figure: ClassVar[str] = "mean average precision"
    final: ClassVar[str] = "test_mean_average_precision"

    def loss(self, outputs: Tensor, wanted: Tensor) -> Loss:
        """Implements :meth:`Target.loss`: the sum of binary cross-entropies of labels uint8
        [N, L], with F1 over all labels of the batch."""
        wanted = wanted.float()
        total = F.binary_cross_entropy_with_logits(outputs, wanted, reduction="sum")
        named = (outputs.detach() > 0).float()
        f1 = 2 * (named * wanted).sum() / (named.sum() + wanted.sum()).clamp(min=1.0)
        return Loss(total=total, weight=len(wanted), metrics={"f1": f1})

    def head_solver(self, *, is_balanced: bool = False) -> HeadSolver:
        del is_balanced
        return SigmoidHead()

    def is_unsure(self, outputs: Tensor) -> Tensor:
        """Implements :meth:`Target.is_unsure`: near the threshold for some label."""
        return (outputs.sigmoid() - THRESHOLD).abs().amin(1) < _UNSURE

    def predictions(
        self, outputs: Tensor, paths: Sequence[str], top_k: int
    ) -> list[LabelsPrediction]:
        if top_k < 1:
            raise UsageError("`top_k` must be a whole number above 0", got=top_k)
        found = []
        for path, row in zip(paths, outputs.sigmoid().tolist(), strict=True):
            order = sorted(range(len(row)), key=lambda at, row=row: -row[at])
            top = tuple((self.names[at], round(row[at], 6)) for at in order[:top_k])
            named = tuple(self.names[at] for at in order if row[at] > THRESHOLD)
            found.append(LabelsPrediction(path=path, labels=named, top=top))
        return found

    def about_predictions(self, rows: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
        return (("top_k", len(rows[0].top)), ("threshold", THRESHOLD))

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, labels.float(), reduction="none").sum(1)

    def in_words(self, outputs: Tensor, label: Tensor) -> tuple[str, str, float | None]:
        true, named = (
            "; ".join(name for name, has in zip(self.names, row.tolist(), strict=True) if has)
            for row in (label > 0, outputs > 0)
        )
        return true or "no label", named or "no label", None

    def data_in_words(self, what: str, parts: Mapping[str, Any], *, is_held_out: bool) -> str:
        read, train = numbers_of_parts(what, parts, is_held_out=is_held_out)
        counts, num_without = train.sum(0), int((train.sum(1) == 0).sum())
        if len(self.names) <= _MOST_NAMED:
            each = ", ".join(f"{n} {c:,}" for n, c in zip(self.names, counts, strict=True))
        else:
            least, most = int(counts.argmin()), int(counts.argmax())
            each = (
                f"with {counts[least]:,} ({self.names[least]}) to {counts[most]:,} "
                f"({self.names[most]}) to train on"
            )
        count = f"{len(self.names):,} label{'s' * (len(self.names) != 1)}"
        colon = ":" if len(self.names) <= _MOST_NAMED else ""
        without = f"; {num_without:,} have none" if num_without else ""
        return (
            f"{read}, of {count}{colon} {each}; {train.sum() / len(train):.2f} an example{without}"
        )

    def scores(self, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Returns mean average precision with its 95 % interval (of resamples), F1 over all labels
        and as the mean of each label's, beside the trivial answers: each label's frequency as its
        probability, and always naming the so many commonest. Labels without an example have no
        average precision."""
        logits, true = outputs.numpy().astype(np.float64), labels.numpy().astype(np.int64)
        named = (logits > 0).astype(np.int64)
        precisions = average_precisions(logits, true)
        num = int(np.clip(_MOST_CELLS / true.size, _LEAST_RESAMPLES, _MOST_RESAMPLES))
        deviation = resampled_deviation(
            lambda counts: _known_mean(average_precisions(logits, true, counts)),
            len(true), num_resamples=num,
        )  # fmt: skip
        value, per_label = _known_mean(precisions), self._per_label(true, named, precisions)
        is_there = true.any(0)
        return {
            "num_examples": len(true),
            "mean_average_precision": value,
            "mean_average_precision_interval": list(_interval(value, deviation, len(true))),
            "micro_f1": _f1(true, named),
            "macro_f1": float(np.mean([row["f1"] for row in per_label.values()])),
            "baseline_mean_average_precision": _known_mean(
                np.where(is_there, true.mean(0), np.nan)
            ),
            "baseline_micro_f1": _best_constant_f1(true),
            "num_labels_without_examples": int((~is_there).sum()),
            "per_label": per_label,
            "labels": list(self.names),
        }

    def _per_label(
        self, true: np.ndarray, named: np.ndarray, precisions: np.ndarray
    ) -> dict[str, dict[str, Any]]:
        hits, of_true, of_named = (true & named).sum(0), true.sum(0), named.sum(0)
        columns = {
            "precision": hits / np.maximum(1, of_named),
            "recall": hits / np.maximum(1, of_true),
            "f1": 2 * hits / np.maximum(1, of_named + of_true),
        }
        return {
            label: {
                "average_precision": None if np.isnan(precisions[at]) else float(precisions[at]),
                **{name: float(column[at]) for name, column in columns.items()},
                "support": int(of_true[at]),
            }
            for at, label in enumerate(self.names)
        }

    def final_figures(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        own = ("mean_average_precision", "mean_average_precision_interval", "micro_f1", "macro_f1")
        trivial = ("baseline_mean_average_precision", "baseline_micro_f1")
        return {
            **{f"test_{name}": scores[name] for name in own},
            **{name: scores[name] for name in trivial},
            "num_test": scores["num_examples"],
        }

    def score(self, scores: Mapping[str, Any]) -> Score:
        low, high = scores["mean_average_precision_interval"]
        return Score(
            name="mean average precision",
            value=scores["mean_average_precision"],
            trivial={"label frequencies": scores["baseline_mean_average_precision"]},
            num_examples=scores["num_examples"],
            interval=(low, high),
        )

    def tables(self, result: Mapping[str, Any], what: str) -> list[str | Table]:
        figures = ("average_precision", "precision", "recall", "f1")
        rows = [
            (
                name, row["support"],
                *("" if row[one] is None else f"{row[one]:.4f}" for one in figures),
            )
            for name, row in result["per_label"].items()
        ]  # fmt: skip
        low, high = result["mean_average_precision_interval"]
        missing = result["num_labels_without_examples"]
        return [
            Table(
                title=f"{result['num_examples']:,} {what} of {result['origin']}",
                columns=("label", what, "avg. prec.", "precision", "recall", "F1"),
                rows=rows, right=(1, 2, 3, 4, 5),
            ),
            f"mean average precision {result['mean_average_precision']:.4f}   (95 %: {low:.4f} to "
            f"{high:.4f}; label frequencies: {result['baseline_mean_average_precision']:.4f})",
            f"micro F1 {result['micro_f1']:.4f}, macro F1 {result['macro_f1']:.4f}   (always the "
            f"commonest labels: micro {result['baseline_micro_f1']:.4f})",
            *([f"{missing} labels have no such example, and no average precision"]
              if missing else []),
        ]  # fmt: skip

    @classmethod
    def summary(cls, metrics: Mapping[str, Any], what: str) -> list[str]:
        low, high = metrics["test_mean_average_precision_interval"]
        return [
            f"test mean average precision {metrics['test_mean_average_precision']:.4f} on "
            f"{metrics['num_test']:,} {what}   (95 %: {low:.4f} to {high:.4f}; label frequencies: "
            f"{metrics['baseline_mean_average_precision']:.4f})",
            f"micro F1 {metrics['test_micro_f1']:.4f}, macro F1 {metrics['test_macro_f1']:.4f}   "
            f"(always the commonest labels: micro {metrics['baseline_micro_f1']:.4f})",
        ]

    def transformers_config(self) -> dict[str, Any]:
        return {"problem_type": "multi_label_classification"}


def _interval(value: float, deviation: float, num_examples: int) -> tuple[float, float]:
    """Returns the 95 % interval of a mean average precision. Where all resamples agree (nothing is
    wrong), it is that of a share of so many examples."""
    if deviation == 0:
        return wilson_interval(value, num_examples)
    return normal_interval(value, deviation, at_most=1.0)


def _known_mean(values: np.ndarray) -> float:
    """Returns the mean of what is no NaN; 0 of nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _f1(true: np.ndarray, named: np.ndarray) -> float:
    return float(2 * (true & named).sum() / max(1, true.sum() + named.sum()))


def _best_constant_f1(true: np.ndarray) -> float:
    """Returns F1 over all labels if the same ones are always named: the best number of the
    commonest."""
    counts = np.sort(true.sum(0))[::-1]
    numbers = np.arange(1, len(counts) + 1)
    return float((2 * counts.cumsum() / (true.sum() + numbers * len(true))).max())
