"""A linear head of frozen features, solved and cross-validated: what the head begins with,
and what to expect of it.

Trained on from there, a head of the same objective (cross-entropy with the same penalty) stays
where it is, and the trunk is not distorted by the gradients of a random one (Kumar et al. 2022,
"Fine-tuning can distort pretrained features and underperform out-of-distribution").

Shapes: N examples, F features, O outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from volano.errors import CheckpointError

PROBE = "probe.safetensors"
# Inverse penalties that are tried, as scikit-learn's C.
_PENALTIES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_FOLDS = 5
# Of fewer examples one split says little: it is made several times.
_FEW, _REPEATS = 400, 3
MOST_EXAMPLES, _LEAST_OF_A_CLASS = 4000, 50


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A solved linear head.

    Attributes:
        center, scale: mean and inverse deviation of the features, [F].
        weight: [O, F], of standardised features.
        bias: [O].
        c: inverse penalty of the sum of losses, chosen by cross-validation.
        num_examples: the number of examples that it was solved on.
        curvature: bound of the objective's curvature, which bounds a stable learning rate.
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
    accuracy: float | None = None
    spread: float | None = None
    num_folds: int = 0
    figure: str = "accuracy"

    @property
    def weight_decay(self) -> float:
        """The penalty of the mean loss that C stands for."""
        return 1 / (self.c * self.num_examples)

    @property
    def learning_rate(self) -> float:
        """A rate that is stable for gradient descent with a momentum of 0.9."""
        return 0.5 / (self.curvature + self.weight_decay)

    @property
    def figures(self) -> dict[str, float]:
        """The cross-validated figure and its spread, for ``run.json``; none if they are not
        known."""
        if self.accuracy is None or self.spread is None:
            return {}
        return {"cross_validated": self.accuracy, "cross_validated_spread": self.spread}

    def in_words(self) -> str:
        """Returns what is to be expected, in words."""
        if self.accuracy is None or self.spread is None:
            return f"{self.figure} to expect: not known, a class has no two different examples"
        return (
            f"{self.figure} to expect of a linear head: {self.accuracy:.3f} +- {self.spread:.3f} "
            f"({self.num_folds} folds of {self.num_examples:,} training examples, C={self.c:g})"
        )

    def save(self, path: Path, save: Any) -> None:
        """Writes it by ``save``, a function of tensors and a path."""
        numbers = [self.c, self.num_examples, self.curvature]
        numbers += [math.nan if v is None else v for v in (self.accuracy, self.spread)]
        tensors = {name: getattr(self, name) for name in ("center", "scale", "weight", "bias")}
        # Files without the factor had one of 2 for two classes.
        tensors["decay_factor"] = torch.ones((), dtype=torch.float64)
        tensors["numbers"] = torch.tensor([*numbers, self.num_folds], dtype=torch.float64)
        save(tensors, path)

    @classmethod
    def load(cls, path: Path) -> LinearProbe:
        """The inverse of :meth:`save`.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        try:
            tensors: dict[str, Any] = dict(load_file(path))
            c, num_examples, curvature, *figures, num_folds = tensors.pop("numbers").tolist()
            # Earlier ones hold -1 for what is not known.
            accuracy, spread = (
                None if math.isnan(value) or value == -1.0 else value for value in figures
            )
            usual = torch.tensor(2.0 if len(tensors["weight"]) == 2 else 1.0)
            factor = tensors.pop("decay_factor", usual).item()
            return cls(
                **tensors, c=c / factor, num_examples=int(num_examples), curvature=curvature,
                accuracy=accuracy, spread=spread, num_folds=int(num_folds),
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{PROBE} of a run must be readable", got=f"{path}: {error}"
            ) from error


class SolvedHead(NamedTuple):
    """A weight [F, O] and a bias [O]."""

    weight: np.ndarray
    bias: np.ndarray

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """Returns the outputs [N, O] for features [N, F]."""
        return X @ self.weight + self.bias


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

        if len(wanted) < 2:
            return iter(())
        folds = RepeatedKFold(**self.fold_options(len(wanted), len(wanted), seed))
        return folds.split(np.zeros(len(wanted)))

    @staticmethod
    def fold_options(most: int, num_examples: int, seed: int) -> dict[str, int]:
        """Returns the numbers of folds, at most so many, and of their repeats, and their seed."""
        repeats = _REPEATS if num_examples < _FEW else 1
        return {
            "n_splits": min(_FOLDS, most), "n_repeats": repeats, "random_state": seed % 2**32
        }  # fmt: skip

    @abstractmethod
    def path(
        self, X: np.ndarray, wanted: np.ndarray, penalties: tuple[float, ...]
    ) -> Iterator[tuple[float, SolvedHead]]:
        """Yields C and what was solved with it, from the strongest penalty on."""

    @abstractmethod
    def judge(self, solved: SolvedHead, X: np.ndarray, wanted: np.ndarray) -> float:
        """Returns the figure of what was solved, on other examples."""


def solve_probe(
    features: Tensor,
    wanted: Tensor,
    solver: HeadSolver,
    *,
    seed: int,
    keys: Sequence[Hashable] | None = None,
) -> LinearProbe:
    """Solves a linear head of centred features, each of deviation 1 or all scaled alike (of few
    examples a feature's own deviation says little), as cross-validation chooses, and with the
    penalty that it chooses.

    Args:
        features: fp32 [N, F].
        wanted: what the head is to give: classes int64 [N], labels [N, L] or numbers [N, K].
        solver: how it is solved.
        seed: the seed of the folds.
        keys: of each example's content: copies, whose keys are equal, are in a fold together, so
            that none is judged by what it was solved on. None: there are no copies.
    """
    X, y = features.numpy().astype(np.float64), wanted.numpy()
    figures = _judged(X, y, solver, _folds_of_copies(solver, y, seed, keys))
    is_alike, best = _chosen(figures)
    center, scale = _statistics(X, is_alike)
    standard = (X - center) * scale
    ((_, head),) = solver.path(standard, y, (best,))
    found = figures.get((is_alike, best), [])
    return LinearProbe(
        center=torch.from_numpy(center).float(), scale=torch.from_numpy(scale).float(),
        weight=torch.from_numpy(head.weight.T).float().contiguous(),
        bias=torch.from_numpy(head.bias).float(),
        c=best, num_examples=len(y), curvature=solver.curvature * _curvature(standard),
        figure=solver.figure, num_folds=len(found),
        accuracy=float(np.mean(found)) if found else None,
        spread=float(np.std(found)) if found else None,
    )  # fmt: skip


def _judged(
    X: np.ndarray,
    y: np.ndarray,
    solver: HeadSolver,
    folds: Iterator[tuple[np.ndarray, np.ndarray]],
) -> dict[tuple[bool, float], list[float]]:
    """Returns the figures of all folds, by whether features are scaled alike and by C."""
    figures: dict[tuple[bool, float], list[float]] = {}
    for train, held in folds:
        for is_alike in (True, False):
            center, scale = _statistics(X[train], is_alike)
            own, others = (X[train] - center) * scale, (X[held] - center) * scale
            for c, head in solver.path(own, y[train], solver.penalties):
                figure = solver.judge(head, others, y[held])
                figures.setdefault((is_alike, c), []).append(figure)
    return figures


def _chosen(figures: Mapping[tuple[bool, float], list[float]]) -> tuple[bool, float]:
    """Returns how features are scaled, and C: the first (scaled alike before each, a strong penalty
    before a weak one) that is no worse than the best but for a standard error (Breiman et al.
    1984), of their difference fold by fold. Of few examples which one is the best is chance."""
    if not figures:
        return True, 0.01
    best = max(figures, key=lambda one: float(np.mean(figures[one])))
    for one, found in figures.items():
        behind = np.subtract(figures[best], found)
        if behind.mean() <= behind.std() / math.sqrt(len(behind)):
            return one
    return best


def _folds_of_copies(
    solver: HeadSolver, wanted: np.ndarray, seed: int, keys: Sequence[Hashable] | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields a solver's folds of the examples that are no copies of earlier ones, each with its
    copies, bool [N]."""
    number_of: dict[Hashable, int] = {}
    numbers = range(len(wanted)) if keys is None else keys
    groups = np.array([number_of.setdefault(key, len(number_of)) for key in numbers])
    firsts = np.unique(groups, return_index=True)[1]
    for _, held in solver.folds(wanted[firsts], seed):
        is_held = np.isin(groups, held)  # the groups are numbered as their firsts are
        yield ~is_held, is_held


def some_of_each(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the rows that a head is solved on, int64: all, or the first of each class if they are
    many, with which the solution hardly moves any more."""
    if len(labels) <= MOST_EXAMPLES:
        return np.arange(len(labels))
    most = max(_LEAST_OF_A_CLASS, MOST_EXAMPLES // num_classes)
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:most] for c in range(num_classes)]))


def _statistics(X: np.ndarray, is_alike: bool) -> tuple[np.ndarray, np.ndarray]:
    deviation = X.std(0)
    if is_alike:
        deviation = np.full_like(deviation, np.sqrt((deviation**2).mean()))
    # A feature that is constant over the examples says nothing.
    return X.mean(0), np.where(deviation > 1e-6, 1.0 / np.maximum(deviation, 1e-6), 0.0)


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
