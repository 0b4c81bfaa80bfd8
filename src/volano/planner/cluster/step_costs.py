"""The costs of a rank's step at any micro-batch, from captures at a few.

Memory at the peak is the largest of several sums that each grow with the micro-batch along a line,
so a straight line between two captures lies on it or above: what is said to fit does.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from volano.plan import Plan
from volano.plan.prediction import MemoryPrediction, TimePrediction
from volano.planner.memory.predict import Prediction
from volano.planner.time.roofline import Rates, num_launches, predict_time


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """The costs of a pass over one micro-batch, and of an update of all parameters.

    Attributes:
        memory: bytes of a device alone, its gradients whole at any time.
        one_pass: seconds of a forward and backward pass, launches apart.
        update: seconds of the update, launches apart.
        pass_launches, update_launches: seconds of the host to start them.
    """

    memory: MemoryPrediction
    one_pass: TimePrediction
    update: TimePrediction
    pass_launches: float
    update_launches: float

    @classmethod
    def of_captured(
        cls, captured: Prediction, plan: Plan, rates: Rates, gradient_bytes: int
    ) -> StepCosts:
        """Returns the costs of a captured step of one micro-batch."""
        quiet = dataclasses.replace(rates, launch=0.0)
        update = [one for one in captured.operations if one.phase == "optimizer"]
        passes = [one for one in captured.operations if one.phase != "optimizer"]
        return cls(
            memory=_with_gradients(captured.memory, gradient_bytes),
            one_pass=predict_time(passes, quiet, plan),
            update=predict_time(update, quiet, plan.pin(compile=False)),
            pass_launches=rates.launch * num_launches(passes, plan),
            update_launches=rates.launch * num_launches(update, plan),
        )

    def step(self, passes: int, shards: int) -> TimePrediction:
        """Returns the seconds of a rank's step of some passes that updates its share."""
        terms = ((self.one_pass, passes), (self.update, 1 / shards))
        bounds, kinds = _sums(terms, "bounds"), _sums(terms, "kinds")
        busy = sum(bounds.values())
        # The host starts operations ahead of the device.
        launch = max(0.0, passes * self.pass_launches + self.update_launches - busy)
        return TimePrediction(
            step=busy + launch,
            startup=self.one_pass.startup,
            bounds={**bounds, "launch": launch},
            kinds={**kinds, "launch": launch},
        )


class CostsByMicroBatch:
    """The costs at any micro-batch between captured ones.

    Args:
        captured: makes the costs at a micro-batch.
        sizes: micro-batches to capture, of which the largest bounds what may be asked.
    """

    def __init__(self, captured: Callable[[int], StepCosts], sizes: Sequence[int]) -> None:
        self._captured, self._sizes = captured, sorted(set(sizes))
        self._known: dict[int, StepCosts] = {}

    def at(self, size: int) -> StepCosts:
        """Returns the costs of a micro-batch of ``size`` examples; a smaller one than any captured
        takes the smallest's."""
        place = bisect.bisect_left(self._sizes, size)
        if place == 0 or self._sizes[place] == size:
            return self._capture(self._sizes[place])
        low, high = self._sizes[place - 1 : place + 1]
        return _between(self._capture(low), self._capture(high), (size - low) / (high - low))

    def _capture(self, size: int) -> StepCosts:
        if size not in self._known:
            self._known[size] = self._captured(size)
        return self._known[size]


def _sums(terms: Sequence[tuple[TimePrediction, float]], name: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for prediction, factor in terms:
        for key, seconds in getattr(prediction, name).items():
            found[key] = found.get(key, 0.0) + factor * seconds
    return found


def _with_gradients(memory: MemoryPrediction, gradient_bytes: int) -> MemoryPrediction:
    """Returns the memory with whole gradients: they stay between passes, and in the pieces in which
    ranks sum them."""
    added = max(0, gradient_bytes - memory.categories.get("gradients", 0))
    return memory.with_more("gradients", added)


def _between(low: StepCosts, high: StepCosts, share: float) -> StepCosts:
    def mixed(one: float, other: float) -> float:
        return one + share * (other - one)

    def mappings(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
        return {name: mixed(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}

    def times(one: TimePrediction, other: TimePrediction) -> TimePrediction:
        return TimePrediction(
            step=mixed(one.step, other.step),
            startup=mixed(one.startup, other.startup),
            bounds=mappings(one.bounds, other.bounds),
            kinds=mappings(one.kinds, other.kinds),
        )

    one, other = low.memory, high.memory
    categories = {
        name: round(size) for name, size in mappings(one.categories, other.categories).items()
    }
    return StepCosts(
        memory=MemoryPrediction(
            peak=sum(categories.values()),
            lower=round(mixed(one.lower, other.lower)),
            upper=round(mixed(one.upper, other.upper)),
            categories=categories,
            operator=other.operator,
            host=round(mixed(one.host, other.host)),
        ),
        one_pass=times(low.one_pass, high.one_pass),
        update=times(low.update, high.update),
        pass_launches=mixed(low.pass_launches, high.pass_launches),
        update_launches=mixed(low.update_launches, high.update_launches),
    )
