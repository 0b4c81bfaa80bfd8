"""The linear heads for classes, for several labels (logistic regressions) and for numbers (ridge
regression), solved.

Shapes: N examples, F features, L labels, K numbers, O outputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from volano.pretrained.linear_probe import HeadSolver, SolvedHead

_MOST_ITERATIONS, _TOLERANCE = 500, 1e-4
_LEAST_SHARE = 1e-3  # of examples, for where a bias begins


class LogisticHead(HeadSolver):
    """A logistic regression with one penalty for all outputs, solved by L-BFGS."""

    @abstractmethod
    def targets(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the probabilities that are wanted, [N, O], and the weight of each example,
        [N]."""

    @abstractmethod
    def losses(self, outputs: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the cross-entropy of each example, [N], and the probabilities, [N, O]."""

    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, SolvedHead]]:
        """Implements :meth:`HeadSolver.path`, each from the last one."""
        from scipy.optimize import minimize

        Y, weights = self.targets(wanted)
        # A solution lies in the span of the examples: of few, that has fewer dimensions.
        back = np.linalg.svd(X, full_matrices=False)[2].T if len(X) < X.shape[1] else None
        Z = X if back is None else X @ back
        shape = (Z.shape[1] + 1, Y.shape[1])
        start = np.zeros(shape)
        shares = np.clip(np.average(Y, 0, weights), _LEAST_SHARE, 1 - _LEAST_SHARE)
        start[-1] = np.log(shares / (1 - shares))
        for c in penalties:
            found: Any = minimize(
                self._objective, start.ravel(), args=(Z, Y, weights / len(Z), c), jac=True,
                method="L-BFGS-B", options={"maxiter": _MOST_ITERATIONS, "gtol": _TOLERANCE},
            )  # fmt: skip
            start = found.x.reshape(shape)
            weight = start[:-1].copy() if back is None else back @ start[:-1]
            yield c, SolvedHead(weight, start[-1].copy())

    def _objective(
        self, flat: np.ndarray, X: np.ndarray, Y: np.ndarray, shares: np.ndarray, c: float
    ) -> tuple[float, np.ndarray]:
        """Returns the mean of the cross-entropies with a penalty, and its gradient."""
        weights = flat.reshape(X.shape[1] + 1, Y.shape[1])
        losses, probabilities = self.losses(X @ weights[:-1] + weights[-1], Y)
        decay = 1 / (c * len(X))
        loss = shares @ losses + 0.5 * decay * (weights[:-1] ** 2).sum()
        wrong = (probabilities - Y) * shares[:, None]
        gradient = np.concatenate([X.T @ wrong + decay * weights[:-1], wrong.sum(0)[None]])
        return float(loss), gradient.ravel()


@dataclass(frozen=True, kw_only=True)
class SoftmaxHead(LogisticHead):
    """A logistic regression of classes; ``is_balanced``: whether they weigh alike, however many
    examples they have."""

    num_classes: int
    is_balanced: bool = False

    def folds(self, wanted: np.ndarray, seed: int) -> Iterator[tuple[Any, Any]]:
        """Implements :meth:`HeadSolver.folds`: each class in each."""
        from sklearn.model_selection import RepeatedStratifiedKFold

        least = int(np.bincount(wanted, minlength=self.num_classes).min())
        if least < 2:
            return iter(())
        folds = RepeatedStratifiedKFold(**self.fold_options(least, len(wanted), seed))
        return folds.split(np.zeros(len(wanted)), wanted)

    def targets(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = np.ones(len(wanted))
        if self.is_balanced:
            counts = np.bincount(wanted, minlength=self.num_classes)
            weights = len(wanted) / (np.count_nonzero(counts) * counts[wanted])
        return np.eye(self.num_classes)[wanted], weights

    def losses(self, outputs: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shifted = outputs - outputs.max(1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(1, keepdims=True)
        return np.log(sums[:, 0]) - (Y * shifted).sum(1), powers / sums

    def judge(self, solved: SolvedHead, X: np.ndarray, wanted: np.ndarray) -> float:
        return float((solved.outputs(X).argmax(1) == wanted).mean())


class SigmoidHead(LogisticHead):
    """A logistic regression of each label, judged by mean average precision."""

    figure: ClassVar[str] = "mean average precision"
    curvature: ClassVar[float] = 0.5

    def targets(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return wanted.astype(np.float64), np.ones(len(wanted))

    def losses(self, outputs: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Implements :meth:`LogisticHead.losses`: of an example, the sum over its labels."""
        probabilities = 1 / (1 + np.exp(-np.clip(outputs, -500, 500)))
        return (np.logaddexp(0, outputs) - Y * outputs).sum(1), probabilities

    def judge(self, solved: SolvedHead, X: np.ndarray, wanted: np.ndarray) -> float:
        found = average_precisions(solved.outputs(X), wanted)
        return 0.0 if np.isnan(found).all() else float(np.nanmean(found))


class RidgeHead(HeadSolver):
    """A ridge regression of standardised numbers, judged by R2."""

    figure: ClassVar[str] = "R2"
    curvature: ClassVar[float] = 2.0
    penalties: ClassVar[tuple[float, ...]] = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)

    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, SolvedHead]]:
        """Implements :meth:`HeadSolver.path`: in closed form, by one decomposition."""
        Y = wanted.astype(np.float64)
        center, mean = X.mean(0), Y.mean(0)
        left, values, right = np.linalg.svd(X - center, full_matrices=False)
        projected = left.T @ (Y - mean)
        for c in penalties:
            shrunk = values / (values**2 + 1 / c)
            weight = right.T @ (shrunk[:, None] * projected)
            yield c, SolvedHead(weight, mean - center @ weight)

    def judge(self, solved: SolvedHead, X: np.ndarray, wanted: np.ndarray) -> float:
        spread = ((wanted - wanted.mean(0)) ** 2).sum(0)
        errors = ((solved.outputs(X) - wanted) ** 2).sum(0)
        return float(1 - (errors / np.maximum(spread, 1e-9)).mean())


def average_precisions(
    scores: np.ndarray, wanted: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """Returns the average precision of each label, as scikit-learn's ``average_precision_score``
    has it; NaN of a label without an example.

    Args:
        scores: the likelier a label, the larger, [N, L].
        wanted: 0 and 1, [N, L].
        counts: how often each example counts, [N]; None counts each once.
    """
    counts = np.ones(len(scores)) if counts is None else counts
    order = np.argsort(-scores, axis=0, kind="stable")
    weights = counts[order]
    hits = np.cumsum(np.take_along_axis(wanted, order, 0) * weights, 0)
    precision = hits / np.maximum(np.cumsum(weights, 0), 1e-12)
    # Equal scores stand or fall together: each has the precision at the last of them.
    ranked = np.take_along_axis(scores, order, 0)
    is_last = np.ones(ranked.shape, dtype=bool)
    is_last[:-1] = ranked[1:] != ranked[:-1]
    steps = np.arange(len(ranked))[:, None]
    last = np.minimum.accumulate(np.where(is_last, steps, len(ranked))[::-1], 0)[::-1]
    precision = np.take_along_axis(precision, last, 0)
    gained = np.diff(hits, axis=0, prepend=0.0)
    total = hits[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (precision * gained).sum(0) / total, np.nan)
