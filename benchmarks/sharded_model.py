"""One rank of several that share parameters, gradients and optimizer state in full (FSDP; ZeRO
stage 3).

Rajbhandari et al. 2020 (arXiv:1910.02054): each rank keeps a part of the state; a unit of the model
(a block) is gathered before its forward pass and again before its backward pass, and its gradients
are summed and scattered after it. Nothing here knows what a model is: it takes the prediction of an
unsharded step and the sizes of the units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from volano.plan.prediction import MemoryPrediction, TimePrediction

# Fitted on published runs on 8 to 128 A100 (benchmarks/catalogue_fit.py).
_LINK_EFFICIENCY = 0.7
_EXPOSED = 0.5
_SECONDS_PER_HOP = 10e-6


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How many devices train together, and what lies between them.

    Attributes:
        world_size: devices in all.
        per_node: devices of one machine.
        interconnect: bytes per second of one device to its neighbours in the machine, in one
            direction.
        network: bytes per second between machines, of a whole machine in one direction.
        efficiency: share of a link's rate that exchanges reach.
        exposed: share of the shorter of computation and exchanges that does not run beside the
            longer.
        hop: seconds until what one rank sends has arrived at the next.
    """

    world_size: int
    per_node: int = 8
    interconnect: float
    network: float = 50e9
    efficiency: float = _LINK_EFFICIENCY
    exposed: float = _EXPOSED
    hop: float = _SECONDS_PER_HOP

    @property
    def rate(self) -> float:
        """Bytes per second at which a ring over all ranks moves: its slowest link, of which each
        machine has one."""
        if self.world_size <= self.per_node:
            return self.interconnect
        return min(self.interconnect, self.network)


@dataclass(frozen=True, kw_only=True)
class Units:
    """The parts of a model that are gathered one at a time.

    Attributes:
        parameters: elements of each unit.
        gather_bytes: of one element while it is gathered.
        reduce_bytes: of one element of a gradient while it is summed.
    """

    parameters: Sequence[int]
    gather_bytes: int = 4
    reduce_bytes: int = 4

    @classmethod
    def of_blocks(cls, elements: Mapping[str, int], blocks: Iterable[str]) -> Units:
        """Of a model in fp32: each block by itself, and what lies in none together, first.

        Args:
            elements: a parameter's name -> number of its elements.
            blocks: names of the modules that are gathered by themselves.
        """
        sizes = dict.fromkeys(blocks, 0)
        rest = 0
        for name, size in elements.items():
            owners = [block for block in sizes if name.startswith(f"{block}.")]
            if owners:
                sizes[max(owners, key=len)] += size
            else:
                rest += size
        return cls(parameters=tuple(size for size in (rest, *sizes.values()) if size))


def predict_communication(units: Units, ranks: Ranks, *, passes: int) -> float:
    """Seconds that a step's exchanges take by themselves.

    A ring moves the share ``(ranks - 1) / ranks`` of a unit past every rank, in as many hops
    (Thakur et al. 2005, doi:10.1177/1094342005051521): twice gathered, once reduced, in each of
    ``passes`` forward and backward passes.
    """
    hops = ranks.world_size - 1
    if hops < 1:
        return 0.0
    moved = (
        sum(units.parameters)
        * (2 * units.gather_bytes + units.reduce_bytes)
        * hops
        / ranks.world_size
    )
    latency = 3 * len(units.parameters) * hops * ranks.hop
    return passes * (moved / (ranks.rate * ranks.efficiency) + latency)


def shard_time(step: TimePrediction, units: Units, ranks: Ranks, *, passes: int) -> TimePrediction:
    """A rank's step with exchanges, from one without them whose optimizer updates the rank's share.

    Exchanges run beside the computation, up to a share: the first unit is waited for, and both want
    the same memory.
    """
    exchanges = predict_communication(units, ranks, passes=passes)
    seconds = max(step.step, exchanges) + ranks.exposed * min(step.step, exchanges)
    waiting = seconds - step.step
    return TimePrediction(
        step=seconds,
        startup=step.startup,
        bounds={**step.bounds, "network": waiting},
        kinds={**step.kinds, "network": waiting},
        origin=step.origin,
    )


def shard_memory(whole: MemoryPrediction, units: Units, ranks: Ranks) -> MemoryPrediction:
    """What a rank holds, from what one device alone would.

    A share of parameters, gradients and optimizer state; the unit that is computed and the one
    gathered ahead of it, and the gradients of one before they are scattered; activations,
    temporaries and batch as they are.
    """
    shared = ("parameters", "gradients", "optimizer_state")
    categories = {
        name: -(-size // ranks.world_size) if name in shared else size
        for name, size in whole.categories.items()
    }
    largest = sorted(units.parameters, reverse=True)[:2]
    gathered = 0
    if ranks.world_size > 1:
        gathered = sum(largest) * units.gather_bytes + max(largest, default=0) * units.reduce_bytes
    categories["temporaries"] = categories.get("temporaries", 0) + gathered
    # Nothing, where the categories are complete.
    saved = whole.peak - sum(whole.categories.values())
    peak = sum(categories.values()) + saved
    return MemoryPrediction(
        peak=peak,
        # The largest unit at least is whole while it is computed.
        lower=max(
            0,
            peak
            - (whole.peak - whole.lower)
            - gathered
            + max(largest, default=0) * units.gather_bytes,
        ),
        upper=peak + (whole.upper - whole.peak),
        categories=categories,
        operator=whole.operator,
        host=-(-whole.host // ranks.world_size),
        origin=whole.origin,
    )
