"""A linear head of frozen features, solved and cross-validated: what the head begins with,
and what to expect of it.

Trained on from there, a head of the same objective (cross-entropy with the same penalty) stays
where it is, and the trunk is not distorted by the gradients of a random one (Kumar et al. 2022,
"Fine-tuning can distort pretrained features and underperform out-of-distribution").
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from volano.errors import CheckpointError

PROBE = "probe.safetensors"
# Inverse penalties that are tried, as scikit-learn's C.
_PENALTIES = (0.001, 0.01, 0.1, 1.0)
_FOLDS = 5
# Of fewer examples one split says little: it is made several times.
_FEW, _REPEATS = 400, 3
MOST_EXAMPLES, _LEAST_OF_A_CLASS = 4000, 50


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A solved linear head.

    Attributes:
        center, scale: mean and inverse deviation of the features, [F].
        weight: [classes, F], of standardised features.
        bias: [classes].
        c: scikit-learn's C, chosen by cross-validation.
        num_examples: the number of examples that it was solved on.
        curvature: bound of the objective's curvature, which bounds a stable learning rate.
        decay_factor: see :meth:`HeadSolver.decay_factor`.
        accuracy, spread: mean and standard deviation of the accuracy (or what else ``figure``
            says) over the folds; None if a class has one example only.
        num_folds: the number of folds.
        figure: what the folds were judged by, in words.
    """

    center: Tensor = field(repr=False)
    scale: Tensor = field(repr=False)
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    c: float
    num_examples: int
    curvature: float
    decay_factor: float
    accuracy: float | None = None
    spread: float | None = None
    num_folds: int = 0
    figure: str = "accuracy"

    @property
    def weight_decay(self) -> float:
        """The penalty of the mean loss that C stands for."""
        return self.decay_factor / (self.c * self.num_examples)

    @property
    def learning_rate(self) -> float:
        """A rate that is stable for gradient descent with a momentum of 0.9."""
        return 0.5 / (self.curvature + self.weight_decay)

    def in_words(self) -> str:
        """Returns what is to be expected, in words."""
        if self.accuracy is None or self.spread is None:
            return f"{self.figure} to expect: not known, a class has one example only"
        return (
            f"{self.figure} to expect of a linear head: {self.accuracy:.3f} +- {self.spread:.3f} "
            f"({self.num_folds} folds of {self.num_examples:,} training examples, C={self.c:g})"
        )

    def save(self, path: Path, save: Any) -> None:
        """Writes it by ``save``, a function of tensors and a path."""
        numbers = [self.c, self.num_examples, self.curvature]
        numbers += [-1.0 if v is None else v for v in (self.accuracy, self.spread)]
        tensors = {name: getattr(self, name) for name in ("center", "scale", "weight", "bias")}
        numbers = torch.tensor([*numbers, self.num_folds], dtype=torch.float64)
        if self.decay_factor != _usual_factor(self.weight):
            tensors["decay_factor"] = torch.tensor(self.decay_factor, dtype=torch.float64)
        save({**tensors, "numbers": numbers}, path)

    @classmethod
    def load(cls, path: Path) -> LinearProbe:
        """The inverse of :meth:`save`.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            tensors: dict[str, Any] = dict(load_file(path))
            c, num_examples, curvature, *figures, num_folds = tensors.pop("numbers").tolist()
            accuracy, spread = (None if value < 0 else value for value in figures)
            factor = tensors.pop("decay_factor", None)
            return cls(
                **tensors, c=c, num_examples=int(num_examples), curvature=curvature,
                decay_factor=_usual_factor(tensors["weight"]) if factor is None else factor.item(),
                accuracy=accuracy, spread=spread, num_folds=int(num_folds),
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{PROBE} of a run must be readable", got=f"{path}: {error}"
            ) from error


class HeadSolver(ABC):
    """The way in which a linear head is solved, by what it is to give.

    Class attributes:
        figure: what a fold is judged by, in words.
        curvature: largest curvature of the objective in its outputs, in those of a cross-entropy
            of several classes.
        penalties: inverse penalties that are tried.
    """

    figure: ClassVar[str] = "accuracy"
    curvature: ClassVar[float] = 1.0
    penalties: ClassVar[tuple[float, ...]] = _PENALTIES

    def folds(self, wanted: np.ndarray, seed: int) -> Iterator[tuple[Any, Any]]:
        """Yields the rows to solve on and those to judge by, for each fold."""
        from sklearn.model_selection import RepeatedKFold

        num_folds = min(_FOLDS, len(wanted))
        if num_folds < 2:
            return iter(())
        repeats = _REPEATS if len(wanted) < _FEW else 1
        folds = RepeatedKFold(n_splits=num_folds, n_repeats=repeats, random_state=seed % 2**32)
        return folds.split(np.zeros(len(wanted)))

    @abstractmethod
    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, Any]]:
        """Yields C and what was solved with it, from the strongest penalty on."""

    @abstractmethod
    def judge(self, solved: Any, X: np.ndarray, wanted: np.ndarray) -> float:
        """Returns the figure of what was solved, on other examples."""

    @abstractmethod
    def head(self, solved: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns its weight [outputs, F] and bias [outputs]."""

    def decay_factor(self, num_outputs: int) -> float:
        """Returns the multiple of ``1 / (C N)`` that the penalty of the mean loss is."""
        del num_outputs
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SoftmaxHead(HeadSolver):
    """A logistic regression of classes, each of which occurs; ``is_balanced``: whether they weigh
    alike, however many examples they have."""

    num_classes: int
    is_balanced: bool = False

    def folds(self, wanted: np.ndarray, seed: int) -> Iterator[tuple[Any, Any]]:
        """Implements :meth:`HeadSolver.folds`: each class in each."""
        return _folds(wanted, self.num_classes, seed)

    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, Any]]:
        """Implements :meth:`HeadSolver.path`, each from the last one."""
        return _path(X, wanted, "balanced" if self.is_balanced else None, penalties)

    def judge(self, solved: Any, X: np.ndarray, wanted: np.ndarray) -> float:
        """Implements :meth:`HeadSolver.judge`."""
        return float((solved.predict(X) == wanted).mean())

    def head(self, solved: Any) -> tuple[np.ndarray, np.ndarray]:
        """Implements :meth:`HeadSolver.head`."""
        return _of_all_classes(solved, self.num_classes)

    def decay_factor(self, num_outputs: int) -> float:
        """Implements :meth:`HeadSolver.decay_factor`: of two classes scikit-learn counts the
        difference of their weights, which is half as long as both together."""
        return 2.0 if num_outputs == 2 else 1.0


def solve_probe(features: Tensor, wanted: Tensor, solver: HeadSolver, *, seed: int) -> LinearProbe:
    """Solves a linear head of centred features, each of deviation 1 or all scaled alike (of few
    examples a feature's own deviation says little), as cross-validation chooses, and with the
    penalty that it chooses.

    Args:
        features: fp32 [N, F].
        wanted: what the head is to give: classes int64 [N], labels [N, L] or numbers [N, K].
        solver: how it is solved.
        seed: the seed of the folds.
    """
    X, y = features.numpy().astype(np.float64), wanted.numpy()
    scores: dict[tuple[bool, float], list[float]] = {}
    for train, held in solver.folds(y, seed):
        for is_alike in (False, True):
            center, scale = _statistics(X[train], is_alike)
            own, others = (X[train] - center) * scale, (X[held] - center) * scale
            for c, model in solver.path(own, y[train], solver.penalties):
                found = solver.judge(model, others, y[held])
                scores.setdefault((is_alike, c), []).append(found)
    means = {setting: np.mean(found) for setting, found in scores.items()}
    setting = max(means, key=lambda one: means[one]) if means else (False, 0.01)
    is_alike, best = setting
    center, scale = _statistics(X, is_alike)
    standard = (X - center) * scale
    ((_, model),) = solver.path(standard, y, (best,))
    weight, bias = solver.head(model)
    return LinearProbe(
        center=torch.from_numpy(center).float(), scale=torch.from_numpy(scale).float(),
        weight=torch.from_numpy(weight).float().contiguous(), bias=torch.from_numpy(bias).float(),
        c=best, num_examples=len(y), curvature=solver.curvature * _curvature(standard),
        decay_factor=solver.decay_factor(len(weight)), figure=solver.figure,
        accuracy=float(np.mean(scores[setting])) if means else None,
        spread=float(np.std(scores[setting])) if means else None,
        num_folds=len(scores.get(setting, ())),
    )  # fmt: skip


def _usual_factor(weight: Tensor) -> float:
    """Returns the factor of a logistic regression of classes, which files leave out."""
    return 2.0 if len(weight) == 2 else 1.0


def some_of_each(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the rows that a head is solved on, int64: all, or the first of each class if they are
    many, with which the solution hardly moves any more."""
    if len(labels) <= MOST_EXAMPLES:
        return np.arange(len(labels))
    most = max(_LEAST_OF_A_CLASS, MOST_EXAMPLES // num_classes)
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:most] for c in range(num_classes)]))


def _folds(labels: np.ndarray, num_classes: int, seed: int) -> Iterator[tuple[Any, Any]]:
    from sklearn.model_selection import RepeatedStratifiedKFold

    num_folds = min(_FOLDS, int(np.bincount(labels, minlength=num_classes).min()))
    if num_folds < 2:
        return iter(())
    repeats = _REPEATS if len(labels) < _FEW else 1
    folds = RepeatedStratifiedKFold(
        n_splits=num_folds, n_repeats=repeats, random_state=seed % 2**32
    )
    return folds.split(np.zeros(len(labels)), labels)


def _path(
    X: np.ndarray, y: np.ndarray, weights: str | None, penalties: tuple[float, ...]
) -> Iterator[tuple[float, Any]]:
    """Yields C and the solved regression, from the strongest penalty on, each from the last one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(
        warm_start=True,
        max_iter=300,
        tol=1e-3,
        class_weight=weights,  # pyright: ignore[reportArgumentType]
    )
    for c in penalties:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield c, model.set_params(C=c).fit(X, y)


def _statistics(X: np.ndarray, is_alike: bool) -> tuple[np.ndarray, np.ndarray]:
    deviation = X.std(0)
    if is_alike:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    # A feature that is constant over the examples says nothing.
    return X.mean(0), np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0)


def _of_all_classes(model: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights and biases of each class; of two, scikit-learn has those of the second."""
    if num_classes == 2:
        return np.concatenate([-model.coef_, model.coef_]) / 2, np.array(
            [-model.intercept_[0], model.intercept_[0]]
        ) / 2
    return model.coef_, model.intercept_


def _curvature(X: np.ndarray) -> float:
    """Returns half the largest eigenvalue of the features' second moments: no cross-entropy of
    several classes is curved more (Boehning 1992)."""
    gram = X.T @ X if X.shape[0] > X.shape[1] else X @ X.T
    vector = np.ones(len(gram)) + 1e-3 * np.arange(len(gram))
    norm = 1.0
    for _ in range(50):
        vector = gram @ vector
        norm = float(np.linalg.norm(vector)) or 1.0
        vector /= norm
    return 0.5 * (norm / len(X) + 1.0)  # and the bias
