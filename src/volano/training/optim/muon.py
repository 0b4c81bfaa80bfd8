"""An optimizer for a whole network: Muon for weight matrices, AdamW for everything else.

Every parameter group carries ``"algorithm": "muon"`` or ``"algorithm": "adamw"``. Learning rates
are read from ``group["lr"]`` at every step, so a schedule only has to write there.

Sources of the formulas:

* Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The
  conventions (momentum as an exponential average, Newton-Schulz coefficients, shape factor
  ``sqrt(max(1, rows / columns))``) are those of ``torch.optim.Muon`` (torch 2.13), which is the
  test reference: for 2-D weights and equal options the updates agree. The iteration runs in bf16,
  as there, if the device has units for it, else in fp32: on a CPU without them it would take longer
  than the rest of the step. What a group says of it is kept in checkpoints, so that a resumed run
  continues with the same arithmetic on any machine. Ranks that train together must be of one kind.
* Weight renormalisation: airbench94_muon keeps the norm of each kernel at a constant; behind a
  batch norm the norm of a kernel carries no information, and fixing it makes ``lr`` the
  *relative* size of a step, so that no weight decay has to be tuned.
* AdamW: Loshchilov & Hutter 2019, through ``torch.optim.adamw.adamw`` (foreach).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from volano.device import Device
from volano.device.torch_private import foreach_lerp, foreach_lerp_, foreach_mul_, foreach_norm
from volano.errors import TaskError

# Quintic coefficients of the Newton-Schulz iteration (Jordan 2024; torch.optim.Muon).
NEWTON_SCHULZ_COEFFICIENTS = (3.4445, -4.7750, 2.0315)

MUON_DEFAULTS: dict[str, Any] = {
    "lr": 1e-3,
    "weight_decay": 0.1,
    "momentum": 0.95,
    "nesterov": True,
    "ns_steps": 5,
    "ns_dtype": None,
    "eps": 1e-7,
    "adjust_lr": "original",
    "renormalize": False,
}
ADAMW_DEFAULTS: dict[str, Any] = {
    "lr": 1e-3,
    "weight_decay": 0.01,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
}
DEFAULTS = {"muon": MUON_DEFAULTS, "adamw": ADAMW_DEFAULTS}


def orthogonalize(
    matrices: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16, eps: float = 1e-7
) -> Tensor:
    """Replaces the singular values of each matrix of a stack by values near one.

    ``matrices`` is ``[count, rows, columns]``; the result has the same shape and ``dtype``. The
    quintic Newton-Schulz iteration ``X <- aX + (bA + cA^2)X`` with ``A = X X^T`` runs on the
    orientation with fewer rows, where ``A`` is smallest.
    """
    a, b, c = NEWTON_SCHULZ_COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(dtype)
    if tall:
        x = x.mT
    norms = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = x / norms.clamp(min=eps)  # the spectral norm is now at most one
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def learning_rate_factor(rows: int, columns: int, adjust_lr: str) -> float:
    """Returns the factor on the learning rate for a ``[rows, columns]`` matrix (as in
    ``torch.optim.Muon``)."""
    if adjust_lr == "original":
        return math.sqrt(max(1.0, rows / columns))
    if adjust_lr == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    raise TaskError("adjust_lr must be 'original' or 'match_rms_adamw'", got=repr(adjust_lr))


def _iteration_dtype(device: torch.device) -> torch.dtype:
    has_units = device.type != "cpu" or Device("cpu").has_bf16_units
    return torch.bfloat16 if has_units else torch.float32


def as_matrix(tensor: Tensor) -> Tensor:
    """Flattens a weight to 2-D: ``[out, in, kh, kw]`` becomes ``[out, in * kh * kw]``."""
    return tensor.flatten(1)


class MuonAdamW(torch.optim.Optimizer):
    """An optimizer of Muon and AdamW, chosen per parameter group.

    Each group must be a dict with ``"params"`` and ``"algorithm"``. Muon groups take ``lr``,
    ``weight_decay`` (decoupled), ``momentum``, ``nesterov``, ``ns_steps``, ``ns_dtype`` (None:
    bf16, or fp32 on a CPU without units for it), ``eps``, ``adjust_lr`` and ``renormalize``; AdamW
    groups take ``lr``, ``weight_decay``, ``betas`` and ``eps``. Equally shaped matrices of a group
    are orthogonalised together in one batched product. A step never waits for the device.
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        """Fills in the defaults of each group's algorithm and check the shapes."""
        super().__init__([dict(group) for group in groups], {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds one group; its algorithm decides which defaults are filled in."""
        algorithm = param_group.get("algorithm")
        if algorithm not in DEFAULTS:
            raise TaskError(
                "A parameter group's algorithm must be 'muon' or 'adamw'", got=repr(algorithm)
            )
        known = DEFAULTS[algorithm]
        unknown = set(param_group) - set(known) - {"params", "algorithm", "name", "initial_lr"}
        if unknown:
            raise TaskError(
                f"A {algorithm} group can take only {', '.join(sorted(known))}", got=sorted(unknown)
            )
        super().add_param_group({**known, **param_group})
        if algorithm == "muon":
            if self.param_groups[-1]["ns_dtype"] is None:
                self.param_groups[-1]["ns_dtype"] = _iteration_dtype(
                    self.param_groups[-1]["params"][0].device
                )
            learning_rate_factor(1, 1, self.param_groups[-1]["adjust_lr"])  # raises if unknown
            for parameter in self.param_groups[-1]["params"]:
                if parameter.ndim < 2:
                    raise TaskError(
                        "Muon is for matrices and kernels only",
                        got=f"a parameter of shape {tuple(parameter.shape)}",
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Applies one update to every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["algorithm"] == "muon":
                self._muon_step(group, parameters)
            else:
                self._adamw_step(group, parameters)
        return loss

    def _muon_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Updates by momentum, batched orthogonalisation, and decay or renormalisation."""
        gradients: list[Tensor] = [p.grad for p in parameters]  # pyright: ignore[reportAssignmentType]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        foreach_lerp_(buffers, gradients, 1.0 - group["momentum"])
        updates = list(buffers)
        if group["nesterov"]:
            updates = list(foreach_lerp(gradients, buffers, group["momentum"]))

        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, update in enumerate(updates):
            by_shape.setdefault(tuple(as_matrix(update).shape), []).append(index)
        if group["weight_decay"]:
            foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        for (rows, columns), indices in by_shape.items():
            stack = torch.stack([as_matrix(updates[i]) for i in indices])
            stack = orthogonalize(stack, group["ns_steps"], group["ns_dtype"], group["eps"])
            rate = group["lr"] * learning_rate_factor(rows, columns, group["adjust_lr"])
            for i, direction in zip(indices, stack.unbind(), strict=True):
                parameters[i].add_(direction.reshape(parameters[i].shape), alpha=-rate)
        if group["renormalize"]:
            self._renormalize(parameters)

    @staticmethod
    def _renormalize(parameters: list[Tensor]) -> None:
        """Scales each matrix to Frobenius norm ``sqrt(min(rows, columns))``.

        This is the norm of an orthogonal matrix, hence of one Muon direction: a step of size
        ``lr`` turns the weight by about ``lr`` radians.
        """
        targets = [math.sqrt(min(as_matrix(p).shape)) for p in parameters]
        norms = foreach_norm(parameters)
        scales = [
            target / norm.clamp(min=1e-12) for target, norm in zip(targets, norms, strict=True)
        ]
        foreach_mul_(parameters, scales)

    def _adamw_step(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Hands the group to torch's multi-tensor AdamW."""
        averages, squares, steps = [], [], []
        for parameter in parameters:
            state = self.state[parameter]
            if "step" not in state:
                state["step"] = torch.tensor(0.0)  # on the host: reading it never waits
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            averages.append(state["exp_avg"])
            squares.append(state["exp_avg_sq"])
            steps.append(state["step"])
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters],  # pyright: ignore[reportArgumentType] - only those with a gradient
            averages,
            squares,
            [],
            steps,
            foreach=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
