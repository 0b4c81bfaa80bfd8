"""The target of numbers: regression.

Shapes: N examples, K numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.apps.application import Table
from volano.apps.targets.target import Target, numbers_of_parts, resampled_deviation
from volano.data.sources import NUMBERS
from volano.pretrained.head_solvers import RidgeHead
from volano.pretrained.linear_probe import HeadSolver
from volano.report import draw_scatter
from volano.report.verdict import Score, normal_interval
from volano.task import Loss

_RESAMPLES = 200
# Pairs of true and predicted numbers that the figures keep for the report.
_MOST_PAIRS = 400


@dataclass(frozen=True, kw_only=True)
class NumbersPrediction:
    """The numbers that are predicted for an example.

    Attributes:
        path: the path of the example, or its place among those given.
        numbers: the numbers by name.
    """

    path: str
    numbers: Mapping[str, float]

    @property
    def number(self) -> float:
        """The number, or the first of several."""
        return next(iter(self.numbers.values()))

    @property
    def columns(self) -> Sequence[str]:
        """The path and the names."""
        return ["path", *self.numbers]

    @property
    def cells(self) -> Sequence[Any]:
        """The values of :attr:`columns`."""
        return [self.path, *self.numbers.values()]

    def to_json(self) -> dict[str, Any]:
        """The path, and the numbers by name."""
        return {"path": self.path, "numbers": dict(self.numbers)}


class InUnits(nn.Module):
    """A network of standardised numbers, in their own units."""

    means: Tensor
    deviations: Tensor

    def __init__(
        self, module: nn.Module, means: Sequence[float], deviations: Sequence[float]
    ) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("means", torch.tensor(means))
        self.register_buffer("deviations", torch.tensor(deviations))

    def forward(self, inputs: Tensor, more: Tensor | None = None) -> Tensor:
        """Returns numbers fp32 [N, K] of what the network takes, one input or two."""
        found = self.module(inputs) if more is None else self.module(inputs, more)
        return found.float() * self.deviations + self.means


@dataclass(frozen=True, kw_only=True)
class Numbers(Target):
    """The target of numbers: outputs are their distances from the mean of the training examples, in
    deviations.

    Attributes:
        means, deviations: those of the training examples.
    """

    kind: ClassVar[str] = NUMBERS
    figure: ClassVar[str] = "mae"
    head_figure: ClassVar[str] = "R2"
    final: ClassVar[str] = "test_mae"
    picture: ClassVar[str] = "predicted over true"
    more_is_better: ClassVar[bool] = False
    # The bag's features have a squared length of 2, and a bias: the curvature is up to 3, and does
    # not fall with what is learned as a cross-entropy's does. With a momentum of 0.9 a rate of 1 is
    # stable; one of 4 was seen not to be.
    rate: ClassVar[float] = 1 / 16
    output: ClassVar[str] = "numbers"

    means: tuple[float, ...] = field()
    deviations: tuple[float, ...] = field()

    @classmethod
    def of(cls, names: tuple[str, ...], columns: tuple[str, ...], train: Any) -> Self:
        """Returns the target for training examples with the numbers fp64 [N, K]."""
        values = np.asarray(train, dtype=np.float64)
        deviations = values.std(0)
        return cls(
            names=names,
            columns=columns,
            means=tuple(values.mean(0).tolist()),
            deviations=tuple(np.where(deviations > 0, deviations, 1.0).tolist()),
        )

    def wanted(self, labels: Tensor) -> Tensor:
        """Returns numbers fp64 [N, K] in deviations from the mean, fp32."""
        distances = (labels.numpy() - np.array(self.means)) / np.array(self.deviations)
        return torch.from_numpy(distances.astype(np.float32))

    def loss(self, outputs: Tensor, wanted: Tensor) -> Loss:
        """Implements :meth:`Target.loss`: Huber's, quadratic within one deviation, so that a few
        numbers far off don't decide; with the mean absolute error, in the unit of a single
        number, of several in deviations."""
        total = F.smooth_l1_loss(outputs, wanted, reduction="sum")
        unit = self.deviations[0] if len(self.names) == 1 else 1.0
        mae = (outputs.detach() - wanted).abs().mean() * unit
        return Loss(total=total, weight=len(wanted), metrics={"mae": mae})

    def head_solver(self, *, is_balanced: bool = False) -> HeadSolver:
        del is_balanced
        return RidgeHead()

    def in_units(self, outputs: Tensor) -> np.ndarray:
        """Returns outputs in the units of the numbers, fp64 [..., K]."""
        return outputs.numpy().astype(np.float64) * np.array(self.deviations) + np.array(self.means)

    def predictions(
        self, outputs: Tensor, paths: Sequence[str], top_k: int
    ) -> list[NumbersPrediction]:
        del top_k
        return [
            NumbersPrediction(
                path=path, numbers={n: _rounded(v) for n, v in zip(self.names, row, strict=True)}
            )
            for path, row in zip(paths, self.in_units(outputs).tolist(), strict=True)
        ]

    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Implements :meth:`Target.losses`: the absolute error in deviations."""
        return (outputs - self.wanted(labels)).abs().mean(1)

    def in_words(self, outputs: Tensor, label: Tensor) -> tuple[str, str, float | None]:
        true, predicted = (
            ", ".join(f"{value:.4g}" for value in row)
            for row in (label.tolist(), self.in_units(outputs).tolist())
        )
        return true, predicted, None

    def data_in_words(self, what: str, parts: Mapping[str, Any], *, is_held_out: bool) -> str:
        read, train = numbers_of_parts(what, parts, is_held_out=is_held_out)
        each = "; ".join(
            f"{name} from {column.min():.4g} to {column.max():.4g}, mean {column.mean():.4g}, "
            f"deviation {column.std():.4g}"
            for name, column in zip(self.names, train.T, strict=True)
        )
        return f"{read}, with the number{'s' * (len(self.names) != 1)} {each}"

    def scores(self, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Returns the mean absolute error with its 95 % interval (of resamples), R2 and root mean
        square error of each number, beside those of always the training examples' mean. Of several
        numbers the first is the mean in deviations, R2 the mean."""
        true, predicted = labels.numpy().astype(np.float64), self.in_units(outputs)
        units = np.array(self.deviations if len(self.names) > 1 else (1.0,))
        errors, trivial = np.abs(predicted - true), np.abs(true - np.array(self.means))
        value = float((errors / units).mean())
        deviation = resampled_deviation(
            lambda counts: float(counts @ (errors / units).mean(1) / counts.sum()),
            len(true), num_resamples=_RESAMPLES,
        )  # fmt: skip
        per_number = self._per_number(true, predicted)
        known = [row["r2"] for row in per_number.values() if row["r2"] is not None]
        return {
            "num_examples": len(true),
            "mae": value,
            "mae_interval": list(normal_interval(value, deviation)),
            "rmse": float(np.sqrt(((errors / units) ** 2).mean())),
            "r2": float(np.mean(known)) if known else None,
            "baseline_mae": float((trivial / units).mean()),
            "per_number": per_number,
            "numbers": list(self.names),
        }

    def _per_number(self, true: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, Any]]:
        errors, trivial = np.abs(predicted - true), np.abs(true - np.array(self.means))
        spread, squares = ((true - true.mean(0)) ** 2).sum(0), (errors**2).sum(0)
        rows = np.unique(np.linspace(0, len(true) - 1, _MOST_PAIRS).round().astype(int))
        return {
            name: {
                "mae": float(errors[:, at].mean()),
                "rmse": float(np.sqrt((errors[:, at] ** 2).mean())),
                "r2": float(1 - squares[at] / spread[at]) if spread[at] > 0 else None,
                "baseline_mae": float(trivial[:, at].mean()),
                "pairs": [[_rounded(true[row, at]), _rounded(predicted[row, at])] for row in rows],
            }
            for at, name in enumerate(self.names)
        }

    def final_figures(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        own = ("mae", "mae_interval", "r2", "rmse")
        return {
            **{f"test_{name}": scores[name] for name in own},
            "baseline_mae": scores["baseline_mae"],
            "num_test": scores["num_examples"],
        }

    def score(self, scores: Mapping[str, Any]) -> Score:
        low, high = scores["mae_interval"]
        return Score(
            name="mean absolute error",
            value=scores["mae"],
            trivial={"always the mean": scores["baseline_mae"]},
            is_more_better=False,
            num_examples=scores["num_examples"],
            interval=(low, high),
            wide=0.5 * scores["mae"],
            digits=_digits(scores["mae"]),
        )

    def tables(self, result: Mapping[str, Any], what: str) -> list[str | Table]:
        rows = [
            (
                name, _short(row["mae"]), _short(row["rmse"]), _short(row["r2"]),
                _short(row["baseline_mae"]),
            )
            for name, row in result["per_number"].items()
        ]  # fmt: skip
        low, high = result["mae_interval"]
        unit = " deviations" if len(rows) > 1 else ""
        return [
            Table(
                title=f"{result['num_examples']:,} {what} of {result['origin']}",
                columns=("number", "MAE", "RMSE", "R2", "MAE of the mean"),
                rows=rows, right=(1, 2, 3, 4),
            ),
            f"mean absolute error {_short(result['mae'])}{unit}   (95 %: {_short(low)} to "
            f"{_short(high)}; always the mean: {_short(result['baseline_mae'])}), R2 "
            f"{_short(result['r2'])}",
        ]  # fmt: skip

    @classmethod
    def summary(cls, metrics: Mapping[str, Any], what: str) -> list[str]:
        low, high = metrics["test_mae_interval"]
        return [
            f"test MAE {_short(metrics['test_mae'])} on {metrics['num_test']:,} {what}   (95 %: "
            f"{_short(low)} to {_short(high)}; always the mean: "
            f"{_short(metrics['baseline_mae'])}), R2 {_short(metrics['test_r2'])}"
        ]

    def draw(self, scores: Mapping[str, Any], title: str, out: Path) -> None:
        """Implements :meth:`Target.draw`: predicted numbers over true ones."""
        pairs = {name: row["pairs"] for name, row in scores["per_number"].items()}
        draw_scatter(pairs, f"{title}: MAE {_short(scores['mae'])}", out)

    def to_json(self) -> dict[str, Any]:
        own = {"means": list(self.means), "deviations": list(self.deviations)}
        return {"kind": self.kind, "columns": list(self.columns), **own}

    def finished(self, module: nn.Module) -> nn.Module:
        return InUnits(module, self.means, self.deviations).train(module.training)

    def spread(self, outputs: Tensor) -> Tensor:
        """Implements :meth:`Target.spread`: deviations, or what fp32 can tell apart of numbers far
        from zero."""
        del outputs
        means, deviations = torch.tensor(self.means), torch.tensor(self.deviations)
        return torch.maximum(deviations, 1e-3 * means.abs())

    def finish_head(self, head: nn.Linear) -> nn.Linear:
        deviations, means = torch.tensor(self.deviations), torch.tensor(self.means)
        with torch.no_grad():
            head.weight.mul_(deviations[:, None])
            head.bias.mul_(deviations).add_(means)
        return head

    def transformers_config(self) -> dict[str, Any]:
        return {"problem_type": "regression"}


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")  # what fp32 holds


def _digits(error: float) -> int:
    return max(0, 3 - math.floor(math.log10(max(error, 1e-9)))) if math.isfinite(error) else 4


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
