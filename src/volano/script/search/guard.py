"""Checks whether a script computes the same under a plan: losses of the first steps, the first
gradient and the first update.

What rounding explains is measured: the script's own run with another number of threads, which sums
in another order, and, if a plan would be struck, its first steps in float64, from which the script
itself is off. Where that is not enough, the plan's own first steps in float64 tell rounding from
another computation: in channels_last the gradient of a convolution with BatchNorm behind it may be
off by 1e-3 in fp32, a hundred times as much as otherwise, and by 1e-14 in float64. A plan of class
`exact` must give the same bits. The form and the constants of the limits are those of
``planner/parity/check.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from volano.script.plan import ScriptPlan

_MOST_LOSSES = 8  # steps diverge by themselves later
_MULTIPLIER, _FLOOR = 2.0, 1e-4
# In float64 a plan computes the same if it is off by less than so much (what leaves the model is
# rounded to fp32); its rounding in fp32 may then take so much of the gradient.
_SAME_IN_FLOAT64, _LARGEST_ROUNDING = 1e-6, 1e-2
# What a type's rounding explains: so many times fp32's own error, scaled by the unit roundoffs.
_AMPLIFIED, _AMPLIFIED_FLOOR = 8.0, 0.05
_ROUNDOFF = {"tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
_ROUNDOFF_FP32 = 2.0**-24
_LARGEST_ERROR = 0.5
# Losses may be off by so much of themselves at the first step, and so much at later ones.
_FIRST_LOSS = {"rounding": 1e-5, "precision": 2e-2}
_LATER_LOSSES = {"rounding": 2e-2, "precision": 1e-1}
_MULTIPLE_OF_OWN = 5.0
# A second optimizer's first gradient comes after the first one's step, which magnifies rounding.
_SECOND_GRADIENT = {"rounding": 2e-2, "precision": 0.5}
_LEAST_UPDATE_COSINE = 0.99
# The script's own runs differ by more than this: nothing can be compared.
_LARGEST_OWN_ERROR = 0.05


class ScriptVerdict(NamedTuple):
    """The answer whether a plan computes the same, and why."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class FirstResults:
    """The results of a run: its first losses, and the first gradients and updates by name."""

    losses: Sequence[float]
    values: dict[str, Any]
    draws: str = ""  # a digest of the generators' state at the first step

    @classmethod
    def of(cls, losses: Sequence[float], path: Path, draws: str = "") -> FirstResults:
        """Reads what a child wrote."""
        return cls(tuple(losses[:_MOST_LOSSES]), load_file(path), draws)

    def chosen(self, kind: str, *, is_first: bool = True) -> dict[str, Any]:
        """Returns the values of a kind, ``"gradient"`` or ``"update"``: of the optimizer that
        stepped first, or of the others."""
        return {
            name: value
            for name, value in self.values.items()
            if name.startswith(f"{kind}.") and name.startswith(f"{kind}.0.") == is_first
        }

    def has_same_bits(self, other: FirstResults) -> bool:
        """Returns whether another run has computed the same to the last bit."""
        num = min(len(self.losses), len(other.losses))
        return (
            self.losses[:num] == other.losses[:num]
            and self.values.keys() == other.values.keys()
            and all(
                value.tobytes() == other.values[name].tobytes()
                for name, value in self.values.items()
            )
        )


class ScriptGuard:
    """The guard of one script.

    Args:
        base: what the script computes as it is.
        repeated: what it computes when it runs again.
        rounded: what it computes with another number of threads.
    """

    def __init__(self, base: FirstResults, repeated: FirstResults, rounded: FirstResults) -> None:
        self._base = base
        self._reference = base
        self.is_reproducible = base.has_same_bits(repeated)
        self._own_error = max(_error(base, repeated), _error(base, rounded))
        self._own_second_error = _error(base, rounded, is_first=False)
        others = (repeated.losses, rounded.losses)
        self._own_losses = max(_largest_excess(base.losses, losses) for losses in others)

    @property
    def why_not(self) -> str | None:
        """The reason why nothing can be compared with the script, or None."""
        if self._own_error <= _LARGEST_OWN_ERROR:
            return None
        return (
            f"the script's own runs differ: the first gradient by {self._own_error:.1g} of its norm"
            " (does it draw from a generator that is not seeded, or go on from files of the last"
            " run? `scratch` gives each run its own)"
        )

    def refer_to(self, reference: FirstResults) -> bool:
        """Takes the script's first steps in float64, against which it has an error of its own.
        Returns whether they are a reference: not if they have drawn other random numbers, or are
        too far from the script's."""
        error = _error(reference, self._base)
        if reference.draws != self._base.draws or error > _LARGEST_OWN_ERROR:
            return False
        self._reference, self._own_error = reference, max(self._own_error, error)
        excess = _largest_excess(reference.losses, self._base.losses)
        self._own_losses = max(self._own_losses, excess)
        return True

    def is_same_in_float64(self, found: FirstResults) -> bool:
        """Returns whether a run under a plan, in float64, has computed what the script does there.
        To be asked after :meth:`refer_to` has taken the script's own."""
        error = _error(self._reference, found)
        return found.draws == self._reference.draws and error <= _SAME_IN_FLOAT64

    def check(
        self, plan: ScriptPlan, found: FirstResults, *, is_same_in_float64: bool = False
    ) -> ScriptVerdict:
        """Returns whether a run under a plan has computed what the script does."""
        if self.why_not is not None:
            return ScriptVerdict(False, f"not compared: {self.why_not}")
        bad = next((loss for loss in found.losses if not math.isfinite(loss)), None)
        if bad is not None and all(map(math.isfinite, self._base.losses)):
            return ScriptVerdict(False, f"a loss is {bad} in step {found.losses.index(bad) + 1}")
        semantics = plan.semantics()
        if self.is_reproducible and self._base.has_same_bits(found):
            return ScriptVerdict(True, "equal to the last bit")
        if semantics == "exact" and self.is_reproducible:
            return ScriptVerdict(False, self._first_difference(found))
        limit = _LARGEST_ROUNDING if is_same_in_float64 else self._limit(plan)
        return self._within_rounding(
            plan, "rounding" if semantics == "exact" else semantics, found, limit
        )

    def _within_rounding(
        self, plan: ScriptPlan, semantics: str, found: FirstResults, limit: float
    ) -> ScriptVerdict:
        error = _error(self._reference, found)
        explained = f"rounding explains {limit:.1e}"
        if not error <= limit:
            return ScriptVerdict(False, f"the first gradient is off by {error:.1e}; {explained}")
        said = (
            self._wrong_second_gradient(semantics, found)
            or self._wrong_loss(semantics, found)
            or self._wrong_update(plan, found)
        )
        if said is not None:
            return ScriptVerdict(False, said)
        return ScriptVerdict(True, f"the first gradient is off by {error:.1e}; {explained}")

    def _limit(self, plan: ScriptPlan) -> float:
        if plan.precision is None:
            return min(_LARGEST_ERROR, _MULTIPLIER * self._own_error + _FLOOR)
        scaled = _AMPLIFIED * self._own_error * _ROUNDOFF[plan.precision] / _ROUNDOFF_FP32
        return min(_LARGEST_ERROR, max(_AMPLIFIED_FLOOR, scaled))

    def _wrong_second_gradient(self, semantics: str, found: FirstResults) -> str | None:
        error = _error(self._base, found, is_first=False)
        limit = _SECOND_GRADIENT[semantics] + _MULTIPLE_OF_OWN * self._own_second_error
        if error <= limit:
            return None
        return f"the second optimizer's first gradient is off by {error:.1e}, more than {limit:.1e}"

    def _wrong_loss(self, semantics: str, found: FirstResults) -> str | None:
        losses = zip(self._reference.losses, found.losses, strict=False)
        for step, (own, loss) in enumerate(losses, 1):
            most = (_FIRST_LOSS if step == 1 else _LATER_LOSSES)[semantics]
            most += _MULTIPLE_OF_OWN * self._own_losses
            if not abs(loss - own) <= most * max(abs(own), 1e-3):
                return f"the loss of step {step} is {loss:.6g} instead of {own:.6g}"
        return None

    def _wrong_update(self, plan: ScriptPlan, found: FirstResults) -> str | None:
        if plan.precision is not None:  # Adam's first update is the sign of a rounded gradient
            return None
        ours, theirs = _joined(self._base.chosen("update")), _joined(found.chosen("update"))
        if ours.shape != theirs.shape:
            return f"{theirs.size} parameters are updated instead of {ours.size}"
        norms = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
        cosine = float(ours @ theirs) / norms if norms > 0 else 1.0
        if cosine >= _LEAST_UPDATE_COSINE:
            return None
        return f"the first update points elsewhere: cosine {cosine:.4f}"

    def _first_difference(self, found: FirstResults) -> str:
        for step, (own, loss) in enumerate(zip(self._base.losses, found.losses, strict=False), 1):
            if own != loss:
                return f"other numbers: the loss of step {step} is {loss:.6g} instead of {own:.6g}"
        return f"other numbers: the first gradient is off by {_error(self._base, found):.1e}"


def _error(base: FirstResults, other: FirstResults, *, is_first: bool = True) -> float:
    """Returns the relative L2 error of all first gradients together, of the optimizer that stepped
    first, or of the others."""
    ours = _joined(base.chosen("gradient", is_first=is_first))
    theirs = _joined(other.chosen("gradient", is_first=is_first))
    if ours.shape != theirs.shape:
        return math.inf
    norm = float(np.linalg.norm(ours))
    off = float(np.linalg.norm(ours - theirs))
    if math.isnan(off):
        return math.inf
    return off / norm if norm > 0 else (0.0 if off == 0 else math.inf)


def _joined(values: dict[str, Any]) -> Any:
    parts = [values[name].astype(np.float64) for name in sorted(values)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _largest_excess(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Returns by how much of themselves losses differ at most."""
    differences = [
        abs(one - other) / max(abs(one), 1e-3)
        for one, other in zip(ours, theirs, strict=False)
        if math.isfinite(one) and math.isfinite(other)
    ]
    return max(differences, default=0.0)
