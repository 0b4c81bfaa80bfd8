"""The linear heads for several labels (a logistic regression of each) and for numbers (ridge
regression), solved.

Shapes: N examples, F features, L labels, K numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from volano.pretrained.linear_probe import HeadSolver

_MOST_ITERATIONS, _TOLERANCE = 300, 1e-3


class SolvedHead(NamedTuple):
    """A weight [F, outputs] and a bias [outputs]."""

    weight: np.ndarray
    bias: np.ndarray

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """Returns the outputs [N, outputs] for features [N, F]."""
        return X @ self.weight + self.bias


class SigmoidHead(HeadSolver):
    """A logistic regression of each label, all with one penalty, judged by mean average
    precision."""

    figure: ClassVar[str] = "mean average precision"
    curvature: ClassVar[float] = 0.5

    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, SolvedHead]]:
        """Implements :meth:`HeadSolver.path`: all labels together by L-BFGS, each from the last
        one."""
        from scipy.optimize import minimize

        Y = wanted.astype(np.float64)
        shape = (X.shape[1] + 1, Y.shape[1])
        # Begins where all weights are zero and each label has its frequency.
        shares = np.clip(Y.mean(0), 1e-3, 1 - 1e-3)
        start = np.zeros(shape)
        start[-1] = np.log(shares / (1 - shares))
        for c in penalties:
            found: Any = minimize(
                _loss_of_labels, start.ravel(), args=(X, Y, c), jac=True, method="L-BFGS-B",
                options={"maxiter": _MOST_ITERATIONS, "gtol": _TOLERANCE},
            )  # fmt: skip
            start = found.x.reshape(shape)
            yield c, SolvedHead(start[:-1].copy(), start[-1].copy())

    def judge(self, solved: SolvedHead, X: np.ndarray, wanted: np.ndarray) -> float:
        """Implements :meth:`HeadSolver.judge`."""
        found = average_precisions(solved.outputs(X), wanted)
        return 0.0 if np.isnan(found).all() else float(np.nanmean(found))

    def head(self, solved: SolvedHead) -> tuple[np.ndarray, np.ndarray]:
        """Implements :meth:`HeadSolver.head`."""
        return solved.weight.T, solved.bias


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
        """Implements :meth:`HeadSolver.judge`."""
        spread = ((wanted - wanted.mean(0)) ** 2).sum(0)
        errors = ((solved.outputs(X) - wanted) ** 2).sum(0)
        return float(1 - (errors / np.maximum(spread, 1e-9)).mean())

    def head(self, solved: SolvedHead) -> tuple[np.ndarray, np.ndarray]:
        """Implements :meth:`HeadSolver.head`."""
        return solved.weight.T, solved.bias


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


def _loss_of_labels(
    flat: np.ndarray, X: np.ndarray, Y: np.ndarray, c: float
) -> tuple[float, np.ndarray]:
    """Returns the mean of binary cross-entropies with a penalty, and its gradient."""
    weights = flat.reshape(X.shape[1] + 1, Y.shape[1])
    outputs = X @ weights[:-1] + weights[-1]
    decay = 1 / (c * len(X))
    loss = (np.logaddexp(0, outputs) - Y * outputs).sum() / len(X)
    loss += 0.5 * decay * (weights[:-1] ** 2).sum()
    wrong = (1 / (1 + np.exp(-np.clip(outputs, -500, 500))) - Y) / len(X)
    gradient = np.concatenate([X.T @ wrong + decay * weights[:-1], wrong.sum(0)[None]])
    return float(loss), gradient.ravel()
