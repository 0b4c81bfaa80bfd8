"""The updates of torch's optimizers for K members: each number becomes a vector [K].

Each formula is the one of the optimizer's documentation. The vectors are made on the host in
float64, as torch makes its numbers, and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from volano.training.optim.muon import learning_rate_factor, orthogonalize

Vector = np.ndarray[Any, np.dtype[np.float64]]
VectorOptions = Mapping[str, Vector]  # name -> [K]
StackedRows = Mapping[str, Tensor]  # name -> [K, 1, ...]
State = tuple[Tensor, ...]
Fixed = Mapping[str, Any]
Updated = tuple[Tensor, State]


@dataclass(frozen=True, kw_only=True)
class Formula:
    """The update formula of one algorithm.

    Attributes:
        state: names of the tensors in a parameter's state, as torch's optimizer names them.
        rows: ``(options, learning rates, steps made before) -> name -> [K]``; options are name ->
            [K].
        update: ``(parameter, gradient, state, rows, fixed) -> (parameter, state)``; each tensor [K,
            ...], a row of the shape [K, 1, ...].
        fixed: options that are the same for all members.
    """

    state: tuple[str, ...]
    rows: Callable[[VectorOptions, Vector, Vector], dict[str, Vector]]
    update: Callable[[Tensor, Tensor, State, StackedRows, Fixed], Updated]
    fixed: tuple[str, ...] = ()


def _sgd_rows(options: VectorOptions, rates: Vector, done: Vector) -> dict[str, Vector]:
    momentum = options["momentum"]
    # The first buffer is the gradient itself; without momentum there is no dampening.
    new = np.where((done == 0) | (momentum == 0), 1.0, 1.0 - options["dampening"])
    return {"rate": rates, "decay": options["weight_decay"], "momentum": momentum, "new": new}


def _sgd(p: Tensor, gradient: Tensor, state: State, row: StackedRows, fixed: Fixed) -> Updated:
    gradient = gradient + row["decay"] * p
    buffer = row["momentum"] * state[0] + row["new"] * gradient
    step = gradient + row["momentum"] * buffer if fixed["nesterov"] else buffer
    return p - row["rate"] * step, (buffer,)


def _adam_rows(options: VectorOptions, rates: Vector, done: Vector) -> dict[str, Vector]:
    first, second = options["beta1"], options["beta2"]
    return {
        "rate": rates / (1.0 - first ** (done + 1.0)),
        "decay": options["weight_decay"],
        "keep": 1.0 - rates * options["weight_decay"],
        "new1": 1.0 - first,
        "beta2": second,
        "new2": 1.0 - second,
        "root": np.sqrt(1.0 - second ** (done + 1.0)),
        "eps": options["eps"],
    }


def _adam(p: Tensor, gradient: Tensor, state: State, row: StackedRows, _: Fixed) -> Updated:
    return _adaptive(p, gradient + row["decay"] * p, state, row)


def _adamw(p: Tensor, gradient: Tensor, state: State, row: StackedRows, _: Fixed) -> Updated:
    return _adaptive(p * row["keep"], gradient, state, row)


def _adaptive(p: Tensor, gradient: Tensor, state: State, row: StackedRows) -> Updated:
    mean = state[0] + row["new1"] * (gradient - state[0])
    square = row["beta2"] * state[1] + row["new2"] * (gradient * gradient)
    return p - row["rate"] * mean / (square.sqrt() / row["root"] + row["eps"]), (mean, square)


def _muon_rows(options: VectorOptions, rates: Vector, _: Vector) -> dict[str, Vector]:
    momentum = options["momentum"]
    return {
        "rate": rates,
        "keep": 1.0 - rates * options["weight_decay"],
        "momentum": momentum,
        "new": 1.0 - momentum,
    }


def _muon(p: Tensor, gradient: Tensor, state: State, row: StackedRows, fixed: Fixed) -> Updated:
    """Updates by Muon: see :mod:`volano.training.optim.muon`; K matrices are made orthogonal in one
    batched product."""
    buffer = state[0] + row["new"] * (gradient - state[0])
    step = gradient + row["momentum"] * (buffer - gradient) if fixed["nesterov"] else buffer
    matrices = step.flatten(2)
    rows, columns = matrices.shape[1:]
    direction = orthogonalize(matrices, fixed["ns_steps"], fixed["ns_dtype"], fixed["eps"]).to(
        p.dtype
    )
    factor = learning_rate_factor(rows, columns, fixed["adjust_lr"])
    p = p * row["keep"] - row["rate"] * factor * direction.reshape(p.shape)
    if fixed["renormalize"]:
        norms = torch.linalg.vector_norm(p.flatten(1), dim=1).clamp(min=1e-12)
        p = p * (math.sqrt(min(rows, columns)) / norms).view(row["keep"].shape)
    return p, (buffer,)


FORMULAS = {
    "SGD": Formula(state=("momentum_buffer",), rows=_sgd_rows, update=_sgd, fixed=("nesterov",)),
    "Adam": Formula(state=("exp_avg", "exp_avg_sq"), rows=_adam_rows, update=_adam),
    "AdamW": Formula(state=("exp_avg", "exp_avg_sq"), rows=_adam_rows, update=_adamw),
    "muon": Formula(
        state=("momentum_buffer",),
        rows=_muon_rows,
        update=_muon,
        fixed=("nesterov", "ns_steps", "ns_dtype", "eps", "adjust_lr", "renormalize"),
    ),
}
