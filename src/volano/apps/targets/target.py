"""The contract of a kind of target: all that differs between telling classes, naming labels and
predicting numbers, for images and texts alike.

Shapes: N examples, O outputs of the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from volano.apps.application import Table
from volano.apps.predictions import OnePrediction
from volano.data.sources import TEST, TRAIN, VALID, TargetFormat
from volano.pretrained.linear_probe import MOST_EXAMPLES, HeadSolver
from volano.report.verdict import Score
from volano.task import Loss

_PARTS = {TRAIN: "to train on", VALID: "to evaluate on meanwhile", TEST: "to test on"}


class HardExample(NamedTuple):
    """A hard example: its row of a set, what is true and what was predicted in words, the
    probability of the latter if there is one, and the loss."""

    row: int
    true: str
    predicted: str
    probability: float | None
    loss: float


@dataclass(frozen=True, kw_only=True)
class Target(ABC):
    """A kind of target: what a network is to give of an example.

    Class attributes:
        kind: its name in options and folders.
        figure: the metric of an evaluation by which trainings are compared.
        more_is_better: whether a larger one is.
        rate: multiple of the learning rates that suit a cross-entropy of classes.
        output: name of what the network gives.
        final: the first of its figures in ``run.json``, by which its runs are known.
        head_figure: what the cross-validated figure of a solved head is, in words.
        picture: what :meth:`draw` draws, in words; empty if it draws nothing.

    Attributes:
        names: names of the outputs.
        columns: the columns of a table that were asked for.
    """

    kind: ClassVar[str]
    figure: ClassVar[str]
    more_is_better: ClassVar[bool] = True
    head_figure: ClassVar[str] = "accuracy"
    rate: ClassVar[float] = 1.0
    output: ClassVar[str] = "logits"
    final: ClassVar[str]
    picture: ClassVar[str] = ""

    names: tuple[str, ...]
    columns: tuple[str, ...] = ()

    # ---- training

    def wanted(self, labels: Tensor) -> Tensor:
        """Returns what the outputs are held against."""
        return labels

    @abstractmethod
    def loss(self, outputs: Tensor, wanted: Tensor) -> Loss:
        """Returns the loss summed over the examples, with :attr:`figure`."""

    def objective(self, of_classes: Callable[[nn.Module, Any], Loss]) -> Any:
        """Returns the objective of a Task; ``of_classes``: the application's own for classes."""
        del of_classes
        return TargetObjective(target=self)

    @abstractmethod
    def head_solver(self, *, is_balanced: bool = False) -> HeadSolver:
        """Returns what solves a linear head of frozen features."""

    def rows_to_solve(self, labels: np.ndarray) -> np.ndarray:
        """Returns the rows that a head is solved on: all, or some from everywhere."""
        count = min(len(labels), MOST_EXAMPLES)
        return np.linspace(0, len(labels) - 1, count).round().astype(np.int64)

    # ---- predictions

    def is_unsure(self, outputs: Tensor) -> Tensor:
        """Returns which examples deserve a second look, bool [N]."""
        return torch.ones(len(outputs), dtype=torch.bool)

    @abstractmethod
    def predictions(
        self, outputs: Tensor, paths: Sequence[str], top_k: int
    ) -> Sequence[OnePrediction]:
        """Returns the predictions for examples with those names."""

    def about_predictions(self, rows: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
        """Returns fields of the JSON object beside predictions."""
        del rows
        return ()

    @abstractmethod
    def losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns how wrong each example's outputs are, fp32 [N]."""

    @abstractmethod
    def in_words(self, outputs: Tensor, label: Tensor) -> tuple[str, str, float | None]:
        """Puts one example's label and outputs into words, with the probability of the latter."""

    # ---- figures

    @abstractmethod
    def data_in_words(self, what: str, parts: Mapping[str, Any], *, is_held_out: bool) -> str:
        """Puts into words what was read: how many examples each split has."""

    @abstractmethod
    def scores(self, outputs: Tensor, labels: Tensor) -> dict[str, Any]:
        """Returns the figures of outputs fp32 [N, O] on the host, beside those of the trivial
        answer."""

    @abstractmethod
    def final_figures(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Returns those of a final test for ``run.json``."""

    @abstractmethod
    def score(self, scores: Mapping[str, Any]) -> Score:
        """Returns the figure by which a run is judged."""

    @abstractmethod
    def tables(self, result: Mapping[str, Any], what: str) -> list[str | Table]:
        """Puts scores, with their ``origin``, into tables and sentences."""

    @classmethod
    @abstractmethod
    def summary(cls, metrics: Mapping[str, Any], what: str) -> list[str]:
        """Puts the final figures of ``run.json`` into words, with intervals and trivial answers;
        ``what`` names the test examples."""

    def draw(self, scores: Mapping[str, Any], title: str, out: Path) -> None:
        """Draws scores as a picture; see :attr:`picture`."""
        del scores, title, out

    # ---- files

    def to_json(self) -> dict[str, Any] | None:
        """Returns what a run keeps of it next to the names; None of classes as they always were."""
        return {"kind": self.kind, "columns": list(self.columns)}

    def format(self, **more: Any) -> TargetFormat:
        """Returns how other examples are read for it."""
        return TargetFormat(kind=self.kind, columns=self.columns, names=self.names, **more)

    def finished(self, module: nn.Module) -> nn.Module:
        """Returns the network for other programs, in the units of the data."""
        return module

    def spread(self, outputs: Tensor) -> Tensor:
        """Returns by how much outputs of :meth:`finished` differ, for a program to be held against
        them."""
        return outputs.abs().max().clamp(min=1.0)

    def finish_head(self, head: nn.Linear) -> nn.Linear:
        """Returns a head in the units of the data; it is changed in place."""
        return head

    def transformers_config(self) -> dict[str, Any]:
        """Returns what a configuration of transformers says of the head."""
        return {}


@dataclass(frozen=True, kw_only=True)
class TargetObjective:
    """The loss of a target, for batches whose last part is what is wanted; see
    ``Task.objective``."""

    target: Target

    def __call__(self, model: nn.Module, batch: Any) -> Loss:
        """Computes the loss of a batch."""
        *inputs, wanted = batch
        return self.target.loss(model(*inputs).float(), wanted)


def hardest(target: Target, outputs: Tensor, labels: Tensor, count: int) -> list[HardExample]:
    """Returns the ``count`` examples with the highest loss, the hardest first."""
    losses = target.losses(outputs, labels)
    rows = losses.topk(min(count, len(losses))).indices.tolist()
    return [
        HardExample(row, *target.in_words(outputs[row], labels[row]), losses[row].item())
        for row in rows
    ]


def numbers_of_parts(
    what: str, parts: Mapping[str, Any], *, is_held_out: bool
) -> tuple[str, np.ndarray]:
    """Puts into words how many examples each split has; returns the training targets too."""
    words = {**_PARTS, TEST: "held out"} if is_held_out else _PARTS
    read = " and ".join(f"{len(part.labels):,} {words[split]}" for split, part in parts.items())
    return f"{what}: {read}", np.asarray(parts[TRAIN].labels)


def resampled_deviation(
    figure: Callable[[np.ndarray], float], num_examples: int, *, num_resamples: int
) -> float:
    """Returns the standard deviation of a figure over resamples of the examples (Efron 1979), given
    as how often each example counts, [N]."""
    generator = np.random.default_rng(0)
    shares = np.full(num_examples, 1 / num_examples)
    found = [
        figure(generator.multinomial(num_examples, shares).astype(np.float64))
        for _ in range(num_resamples)
    ]
    return float(np.nanstd(found))
