"""The explanation of a plan, as a value: the plan, why it was chosen, and every candidate with its
figures."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from volano.errors import PlanError
from volano.plan.format import changes_text, status_text
from volano.plan.network import NetworkFigures
from volano.plan.plan import Plan, Semantics, semantics_of
from volano.plan.prediction import MemoryPrediction, TimePrediction

SCHEMA_VERSION = 1
MemoryVerdict = Literal["FITS", "NO", "UNCERTAIN"]
# chosen; slower: measured or predicted to be; struck: rejected, because the guard found other
# numbers; failed: it does not run; memory: it does not fit; untried: planning had no time left for
# it.
Status = Literal["chosen", "slower", "struck", "failed", "memory", "untried"]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A value of a knob that is not a candidate, and why."""

    knob: str
    value: Any
    reason: str

    @property
    def semantics(self) -> Semantics:
        """The knob's class."""
        return semantics_of(self.knob)

    def to_json(self) -> dict[str, Any]:
        """Returns all fields and the class."""
        return {
            "knob": self.knob,
            "value": self.value,
            "semantics": self.semantics,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A plan that was considered.

    Attributes:
        plan: the whole plan.
        status: what became of it.
        reason: why, in words, with figures.
        predicted: prediction of its step; None if there is none.
        measured: seconds of a step; None if it did not run.
        startup: seconds paid once, measured, or predicted if it did not run.
        filling: seconds that a step of the first epoch takes more than a later one, because what
            a frozen prefix computes is kept from then on.
        total: predicted seconds of the whole run under it, start-up included.
        memory_bytes: predicted live bytes at the peak, or None.
        verdict: whether those fit, or None.
        parity: figures of the guard; empty if it had nothing to check or did not check.
    """

    plan: Plan
    status: Status
    reason: str
    predicted: TimePrediction | None = None
    measured: float | None = None
    startup: float | None = None
    filling: float = 0.0
    total: float | None = None
    memory_bytes: int | None = None
    verdict: MemoryVerdict | None = None
    parity: Mapping[str, float] = field(default_factory=dict)

    @property
    def semantics(self) -> Semantics:
        """The widest class among its knobs."""
        return self.plan.semantics()

    def changes_text(self, base: Plan) -> str:
        """Returns in a few words how it differs from ``base``; ``"plain eager"`` if it does not."""
        return changes_text(self.plan, base)

    def to_json(self) -> dict[str, Any]:
        """Returns all fields; times in seconds."""
        return {
            **asdict(self),
            "plan": self.plan.to_json(),
            "semantics": self.semantics,
            "predicted_seconds": None if self.predicted is None else self.predicted.step,
            "measured_seconds": self.measured,
            # JSON has no infinity: a value that is not a finite number becomes null.
            "parity": {
                name: value if math.isfinite(value) else None for name, value in self.parity.items()
            },
        }


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation:
    """The result of ``volano.explain``, which also stands in ``explanation.json`` of a run.

    Attributes:
        task: the task's name.
        device: the device's name as torch writes it; for an absent device, its name in the
            catalogue.
        device_name: the device's name in the driver or the catalogue.
        is_present: whether the device is on this machine.
        plan: the chosen plan.
        origin: how it was found: ``"raced"``, ``"predicted"``, ``"remembered"``, ``"trusted"`` (too
            short a run to measure) or ``"given"``.
        num_steps: number of steps of the run that was planned.
        num_examples: number of examples of a step.
        seconds: predicted seconds of the whole run under the plan, and under plain eager:
            ``{"plan": ..., "eager": ...}``.
        planning_seconds: seconds that the search took.
        verdict: whether the chosen plan fits the budget.
        budget: bytes that the device may hold, or None if no budget was given.
        memory: memory of the chosen plan at its peak; None if it was not predicted.
        needed: bytes that the leanest candidate needs, if nothing fits.
        time: predicted time of the chosen plan's step.
        measured: seconds of its step, or None.
        actual: with ``analyze``, the measurements to compare with the predictions: ``step``,
            ``memory_bytes``, ``bounds``...
        candidates: candidates, the chosen one first, then by total.
        refused: values of knobs that were not candidates.
        notices: notices for the user.
        network: the network by its parts; None in explanations of earlier versions.
    """

    task: str
    device: str
    device_name: str
    is_present: bool
    plan: Plan
    origin: str
    num_steps: int
    num_examples: int
    seconds: Mapping[str, float | None]
    planning_seconds: float
    verdict: MemoryVerdict | None
    budget: int | None
    memory: MemoryPrediction | None
    time: TimePrediction | None
    measured: float | None
    candidates: tuple[Candidate, ...]
    refused: tuple[Refusal, ...]
    needed: int | None = None
    actual: Mapping[str, Any] | None = None
    notices: tuple[str, ...] = ()
    network: NetworkFigures | None = None

    def __repr__(self) -> str:
        """The plan and its candidates in lines, for a notebook."""
        width = max((len(self._name(candidate.plan)) for candidate in self.candidates), default=0)
        lines = [
            f"Plan of {self.task} on {self.device}, {self.num_steps:,} steps of "
            f"{self.num_examples:,}: {self._name(self.plan)}"
        ]
        for candidate in self.candidates:
            predicted = None if candidate.predicted is None else candidate.predicted.step
            step = candidate.measured or predicted
            word = "" if step is None else "measured" if candidate.measured else "predicted"
            figure = "" if step is None else f"{1e3 * step:,.4g} ms"
            lines.append(
                f"  {self._name(candidate.plan):<{width}}  {figure:>10}  {word:<9}  "
                f"{status_text(candidate.status)}: {candidate.reason}"
            )
        return "\n".join([*lines, *(f"note: {notice}" for notice in self.notices)])

    def _name(self, plan: Plan) -> str:
        return changes_text(plan, Plan.baseline(self.plan.device))

    @property
    def prediction_error(self) -> dict[str, float] | None:
        """The error of the predictions over all candidates with a predicted and a measured step:
        ``num_candidates``, the ``median`` relative error, and the ``worst_factor``; None without
        any. That of a plan whose steps were timed to correct the others is none."""
        pairs = [
            (candidate.predicted.step, candidate.measured)
            for candidate in self.candidates
            if candidate.predicted is not None
            and candidate.predicted.origin != "timed"
            and candidate.measured
        ]
        factors = [max(p / m, m / p) for p, m in pairs if p > 0]
        if not factors:
            return None
        return {
            "num_candidates": len(factors),
            "median": statistics.median(abs(p / m - 1.0) for p, m in pairs if p > 0),
            "worst_factor": max(factors),
        }

    @staticmethod
    def following_from(candidates: Iterable[Candidate], base: Plan) -> dict[str, Any]:
        """Returns the fields that follow from the candidates, the chosen one first; ``base`` is
        plain eager."""
        chosen, *rest = candidates
        eager = next((candidate for candidate in (chosen, *rest) if candidate.plan == base), None)
        return {
            "plan": chosen.plan,
            "seconds": {"plan": chosen.total, "eager": None if eager is None else eager.total},
            "verdict": chosen.verdict,
            "time": chosen.predicted,
            "measured": chosen.measured,
            "candidates": (chosen, *rest),
        }

    def to_json(self) -> dict[str, Any]:
        """Returns everything; ``memory`` holds bytes by category and ``peak``, ``lower``,
        ``upper``."""
        memory = self.memory
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
            "plan": self.plan.to_json(),
            "seconds": dict(self.seconds),
            "memory": None
            if memory is None
            else {**memory.categories, **{name: getattr(memory, name) for name in _MEMORY_FIELDS}},
            "time": None
            if self.time is None
            else {**asdict(self.time), "bounds": dict(self.time.bounds)},
            "actual": None if self.actual is None else dict(self.actual),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "prediction_error": self.prediction_error,
            "refused": [refusal.to_json() for refusal in self.refused],
            "notices": list(self.notices),
            "network": None if self.network is None else asdict(self.network),
        }

    @classmethod
    def from_json(cls, value: Any) -> Explanation:
        """Reads the result of :meth:`to_json`.

        Raises:
            PlanError: the value has another version, or is incomplete.
        """
        if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
            found = value.get("schema_version") if isinstance(value, dict) else type(value).__name__
            raise PlanError(f"An explanation must have schema version {SCHEMA_VERSION}", got=found)
        try:
            derived = ("schema_version", "prediction_error")
            fields = {name: item for name, item in value.items() if name not in derived}
            fields |= {
                "plan": Plan.from_json(value["plan"]),
                "memory": None if value["memory"] is None else _memory(value["memory"]),
                "time": None if value["time"] is None else TimePrediction(**value["time"]),
                "candidates": tuple(map(_candidate, value["candidates"])),
                "refused": tuple(
                    Refusal(**{name: item for name, item in refusal.items() if name != "semantics"})
                    for refusal in value["refused"]
                ),
                "notices": tuple(value["notices"])
                if isinstance(value["notices"], list)
                else value["notices"],
                "network": NetworkFigures.from_json(value["network"])
                if value.get("network")
                else None,
            }
            found = cls(**fields)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanError(
                "An explanation must hold all of its fields", got=f"{type(error).__name__}: {error}"
            ) from error
        _check_types(found)
        return found


def _check_types(value: Any) -> None:
    """Raises PlanError if a field of a value read from a file is of another type than it is
    declared with."""
    hints = get_type_hints(type(value))
    for field_ in dataclasses.fields(value):
        found = getattr(value, field_.name)
        if not _is_of(found, hints[field_.name]):
            raise PlanError(
                f"{field_.name} of an explanation must be {field_.type}",
                got=f"{type(found).__name__} {str(found)[:200]}",
            )


def _is_of(value: Any, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_of(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            isinstance(n, str) and _is_of(v, parts[1]) for n, v in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_of(item, parts[0]) for item in value)
    if hint in (int, float):
        # An integer beyond any float cannot be used in arithmetic.
        is_number = isinstance(value, float | int) and not isinstance(value, bool)
        return is_number and (isinstance(value, float) or abs(value) < 2**1023)
    if hint is Any:
        return True
    if not isinstance(value, hint):
        return False
    # A plan is checked at birth.
    if dataclasses.is_dataclass(value) and not isinstance(value, Plan):
        _check_types(value)
    return True


# Fields of an explanation that stand in its JSON as they are.
_PLAIN_FIELDS = (
    "task", "device", "device_name", "is_present", "origin", "num_steps", "num_examples",
    "planning_seconds", "verdict", "budget", "needed", "measured",
)  # fmt: skip
_MEMORY_FIELDS = ("peak", "lower", "upper", "operator", "host", "origin")


def _memory(value: dict[str, Any]) -> MemoryPrediction:
    categories = {name: item for name, item in value.items() if name not in _MEMORY_FIELDS}
    return MemoryPrediction(categories=categories, **{name: value[name] for name in _MEMORY_FIELDS})


def _candidate(value: dict[str, Any]) -> Candidate:
    derived = ("semantics", "predicted_seconds", "measured_seconds")
    fields = {name: item for name, item in value.items() if name not in derived}
    predicted = None if fields["predicted"] is None else TimePrediction(**fields["predicted"])
    parity = {
        name: math.nan if value is None else value for name, value in fields["parity"].items()
    }
    return Candidate(
        **{
            **fields,
            "plan": Plan.from_json(fields["plan"]),
            "predicted": predicted,
            "parity": parity,
        }
    )
