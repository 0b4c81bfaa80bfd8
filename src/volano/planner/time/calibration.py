"""The calibration of predictions by measured steps: for each class of plans, the factor by which
measurements differ.

A roofline errs in the same way for similar steps: by the share of a device's peaks that its
libraries reach. So a measurement on a device corrects the predictions of its class: precision,
compiled or not, memory format, and the kind of operation that takes most of the step. A class that
was never measured takes the factor of the nearest wider class.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from volano.errors import UsageError
from volano.plan import Plan
from volano.plan.prediction import TimePrediction

SCHEMA_VERSION = 1
# The number of measurements of a class that are remembered: enough for the tasks of the last weeks,
# few enough to follow a device that changes.
_KEPT = 15
# The largest factor that counts. A measurement that differs by more means that something else was
# measured (a device in use, a prediction of another step).
_LARGEST_FACTOR = 32.0
_ANY = "*"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The corrections of predicted step times on one machine. It is a value: :meth:`update` returns
    another.

    Attributes:
        ratios: class -> natural logarithms of measured / predicted, oldest first.
    """

    ratios: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def update(
        self, plan: Plan, prediction: TimePrediction, measured: float, *, device: str | None = None
    ) -> Calibration:
        """Returns the calibration with one more measurement.

        Args:
            plan: the plan that was run.
            prediction: the prediction of its step, before this calibration was applied.
            measured: seconds of its step.
            device: name of the hardware; None takes the plan's device.

        Raises:
            UsageError: a time is not positive and finite.
        """
        ratios = dict(self.ratios)
        for key in _classes(plan, prediction, device):
            ratios[key] = (*ratios.get(key, ()), _log_ratio(prediction.step, measured))[-_KEPT:]
        return dataclasses.replace(self, ratios=ratios)

    def factor(
        self, plan: Plan, prediction: TimePrediction, *, device: str | None = None
    ) -> float | None:
        """Returns measured / predicted, the median of the narrowest class that was measured; None
        without any on the device."""
        for key in _classes(plan, prediction, device):
            if self.ratios.get(key):
                return math.exp(statistics.median(self.ratios[key]))
        return None

    def apply(
        self, plan: Plan, prediction: TimePrediction, *, device: str | None = None
    ) -> TimePrediction:
        """Returns the prediction times its class's factor; unchanged if nothing was measured on the
        device."""
        factor = self.factor(plan, prediction, device=device)
        if factor is None or prediction.origin == "measured":
            return prediction
        return dataclasses.replace(prediction.scaled(factor), origin="calibrated")

    def to_json(self) -> dict[str, Any]:
        """Returns version and ratios, as lists of numbers."""
        return {
            "schema_version": SCHEMA_VERSION,
            "ratios": {key: list(values) for key, values in self.ratios.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Calibration:
        """Reads the result of :meth:`to_json`.

        Raises:
            UsageError: the value is not a result of :meth:`to_json`, or of another version.
        """
        ratios = value.get("ratios") if isinstance(value, dict) else None
        if not isinstance(ratios, dict) or value.get("schema_version") != SCHEMA_VERSION:
            raise UsageError(
                f"A calibration must be a JSON object of version {SCHEMA_VERSION}",
                got=repr(value)[:80],
            )
        bound = math.log(_LARGEST_FACTOR) * (1 + 1e-12)
        for key, values in ratios.items():
            numbers = isinstance(values, list) and all(
                isinstance(number, float | int)
                and not isinstance(number, bool)
                and abs(number) <= bound
                for number in values
            )
            if not numbers:
                raise UsageError(
                    "A calibration must hold logarithms of factors by class",
                    got=f"{key}: {values!r}"[:80],
                )
        return cls(
            ratios={key: tuple(map(float, values))[-_KEPT:] for key, values in ratios.items()}
        )


def _log_ratio(predicted: float, measured: float) -> float:
    if not (0 < measured < math.inf and 0 < predicted < math.inf):
        raise UsageError(
            "A calibration needs positive, finite seconds", got=f"{predicted}, measured {measured}"
        )
    bound = math.log(_LARGEST_FACTOR)
    return max(-bound, min(bound, math.log(measured / predicted)))


def _classes(plan: Plan, prediction: TimePrediction, device: str | None) -> tuple[str, ...]:
    """Returns the keys of the classes that a plan's step belongs to, narrowest first."""
    place = device or plan.device
    compiled = "compiled" if plan.compile else "eager"
    kind = max(prediction.kinds, key=lambda name: prediction.kinds[name], default=_ANY)
    parts = (
        (place, plan.precision, compiled, kind, plan.memory_format),
        (place, plan.precision, compiled, kind, _ANY),
        (place, _ANY, compiled, kind, _ANY),
        (place, _ANY, _ANY, kind, _ANY),
        (place, plan.precision, compiled, _ANY, _ANY),
        (place, _ANY, _ANY, _ANY, _ANY),
    )
    return tuple(dict.fromkeys(" | ".join(names) for names in parts))
