"""The explanation of a training on a cluster that is not here, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from volano.plan.explanation import MemoryVerdict
from volano.plan.plan import Plan
from volano.plan.prediction import MemoryPrediction, TimePrediction


@dataclass(frozen=True, kw_only=True)
class ClusterCandidate:
    """A plan for some number of devices.

    Attributes:
        plan: the plan of each rank; ``micro_batch`` is a rank's.
        world_size: number of devices.
        passes: micro-batches of a rank's step.
        time: predicted step; ``bounds["network"]`` is what it waits for exchanges.
        exchanges: seconds that the step's exchanges take by themselves.
        memory: predicted bytes of a device at the peak.
        verdict: whether those fit the budget.
        examples_per_second: of all devices together.
        tokens_per_second: the same in tokens; None if the batch holds none.
        device_hours: devices times hours of the whole run.
    """

    plan: Plan
    world_size: int
    passes: int
    time: TimePrediction
    exchanges: float
    memory: MemoryPrediction
    verdict: MemoryVerdict
    examples_per_second: float
    tokens_per_second: float | None
    device_hours: float

    @property
    def exchange_share(self) -> float:
        """The share of the step that is spent waiting for exchanges."""
        return self.time.bounds.get("network", 0.0) / self.time.step

    def to_json(self) -> dict[str, Any]:
        """Returns all fields and the share of exchanges; times in seconds."""
        return {
            **asdict(self),
            "plan": self.plan.to_json(),
            "step_seconds": self.time.step,
            "exchange_share": self.exchange_share,
        }


@dataclass(frozen=True, kw_only=True)
class ClusterExplanation:
    """The result of ``volano.explain`` for many devices that are not here.

    Attributes:
        task: the task's name.
        device_name: the device's name in the catalogue.
        machine: the machine's name there.
        world_size, num_nodes, per_node: devices, machines, devices of a machine.
        interconnect: bytes per second between devices of a machine, in one direction.
        network: bytes per second between machines, of a whole machine in one direction.
        sources: what the figures of device and machine stand in.
        budget: bytes that a device may hold.
        num_steps, num_examples: steps of the run, examples of a step of all devices together.
        planning_seconds: seconds that the answer took.
        candidates: for each way to share the model the fastest that fits, or the leanest if none
            does; the best one first.
        curve: the best candidate for each number of devices that divides the batch.
        notices: notices for the user.
    """

    task: str
    device_name: str
    machine: str
    world_size: int
    num_nodes: int
    per_node: int
    interconnect: float
    network: float
    sources: tuple[str, ...]
    budget: int
    num_steps: int
    num_examples: int
    planning_seconds: float
    candidates: tuple[ClusterCandidate, ...]
    curve: tuple[ClusterCandidate, ...]
    notices: tuple[str, ...] = ()

    @property
    def best(self) -> ClusterCandidate:
        """The fastest candidate that fits, for the devices that were asked for."""
        return self.candidates[0]

    @property
    def verdict(self) -> MemoryVerdict:
        """The verdict on :attr:`best`."""
        return self.best.verdict

    @property
    def cheapest(self) -> ClusterCandidate | None:
        """The point of :attr:`curve` that fits and takes the fewest device-hours; None if none
        fits."""
        fitting = [point for point in self.curve if point.verdict == "FITS"]
        return min(fitting, key=lambda point: point.device_hours, default=None)

    def to_json(self) -> Mapping[str, Any]:
        """Returns all fields, the verdict and the cheapest number of devices."""
        cheapest = self.cheapest
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "verdict": self.verdict,
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "curve": [candidate.to_json() for candidate in self.curve],
            "cheapest": None if cheapest is None else cheapest.to_json(),
        }
