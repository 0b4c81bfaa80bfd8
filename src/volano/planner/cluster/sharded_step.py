"""The step of one of several ranks that train a model together: exchanges, memory, time.

``"none"``: each rank keeps a whole copy, and gradients are summed while the backward pass runs (Li
et al. 2020, arXiv:2006.15704). ``"full"``: each keeps a part of parameters, gradients and optimizer
state; a unit of the model (a block) is gathered before its forward pass and again before its
backward pass, and its gradients are summed and scattered after it (Rajbhandari et al. 2020,
arXiv:1910.02054). ``"hybrid"``: that within each machine, and whole copies between machines (Zhao
et al. 2023, arXiv:2304.11277). Nothing here knows what a model is: it takes the prediction of an
unsharded step and the sizes of the units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from volano.plan.prediction import MemoryPrediction, TimePrediction

# Fitted on published runs on 8 to 128 A100 (benchmarks/cluster_fit.py).
_LINK_EFFICIENCY = 0.7
_EXPOSED = 0.5
_SECONDS_PER_HOP = 10e-6
# DistributedDataParallel sums gradients in pieces of this size (its bucket_cap_mb).
_BUCKET_BYTES = 25 * 2**20
_SHARED = ("parameters", "gradients", "optimizer_state")


@dataclass(frozen=True, kw_only=True)
class ClusterLayout:
    """The devices that train together, and what lies between them.

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
    def num_nodes(self) -> int:
        """The number of machines."""
        return -(-self.world_size // self.per_node)

    @property
    def rate(self) -> float:
        """The bytes per second at which a ring over all ranks moves: its slowest link, of which
        each machine has one."""
        if self.num_nodes == 1:
            return self.interconnect
        return min(self.interconnect, self.network)

    def num_shards(self, sharding: str) -> int:
        """Returns into how many parts the state is cut."""
        parts = {"none": 1, "hybrid": min(self.per_node, self.world_size), "full": self.world_size}
        return parts[sharding]


@dataclass(frozen=True, kw_only=True)
class GatherUnits:
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
    def of_blocks(cls, elements: Mapping[str, int], blocks: Iterable[str]) -> GatherUnits:
        """Returns the units of a model in fp32: each block by itself, and what lies in none
        together, first.

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


def predict_exchanges(
    units: GatherUnits, layout: ClusterLayout, *, passes: int, sharding: str = "full"
) -> float:
    """Predicts the seconds that a step's exchanges take by themselves.

    A ring moves the share ``(ranks - 1) / ranks`` of a tensor past every rank, in as many hops, to
    gather or to reduce it; a sum for all ranks is both, along a tree if there are many (Thakur et
    al. 2005, doi:10.1177/1094342005051521). Sharded units are gathered twice and reduced once in
    each of ``passes`` forward and backward passes; whole copies sum once a step.
    """
    count = sum(units.parameters)
    if sharding == "none":
        return _sum_over(layout.world_size, count * units.reduce_bytes, layout.rate, layout)
    ranks = layout.num_shards(sharding)
    moved = count * (2 * units.gather_bytes + units.reduce_bytes)
    rate = layout.interconnect if sharding == "hybrid" else layout.rate
    seconds = passes * _ring(ranks, moved, 3 * len(units.parameters), rate, layout)
    if sharding == "hybrid":
        # Every rank sums its part with the ranks of the same part; a machine's share one network.
        num_bytes = count * units.reduce_bytes
        seconds += _sum_over(layout.num_nodes, num_bytes, layout.network, layout)
    return seconds


def _ring(ranks: int, num_bytes: int, pieces: int, rate: float, layout: ClusterLayout) -> float:
    hops = ranks - 1
    moved = num_bytes * hops / ranks
    return moved / (rate * layout.efficiency) + pieces * hops * layout.hop


def _sum_over(ranks: int, num_bytes: int, rate: float, layout: ClusterLayout) -> float:
    if ranks == 1:
        return 0.0
    pieces = math.ceil(num_bytes / _BUCKET_BYTES)
    hops = min(2 * (ranks - 1), 2 * math.ceil(math.log2(ranks)))
    moved = 2 * num_bytes * (ranks - 1) / ranks
    return moved / (rate * layout.efficiency) + pieces * hops * layout.hop


def shard_time(
    step: TimePrediction,
    units: GatherUnits,
    layout: ClusterLayout,
    *,
    passes: int,
    sharding: str = "full",
) -> TimePrediction:
    """Predicts a rank's step with exchanges, from one without them whose optimizer updates the
    rank's share.

    Exchanges run beside the computation, up to a share: the first unit is waited for, and both want
    the same memory.
    """
    exchanges = predict_exchanges(units, layout, passes=passes, sharding=sharding)
    seconds = max(step.step, exchanges) + layout.exposed * min(step.step, exchanges)
    waiting = seconds - step.step
    return TimePrediction(
        step=seconds,
        startup=step.startup,
        bounds={**step.bounds, "network": waiting},
        kinds={**step.kinds, "network": waiting},
        origin=step.origin,
    )


def shard_memory(
    whole: MemoryPrediction, units: GatherUnits, layout: ClusterLayout, sharding: str = "full"
) -> MemoryPrediction:
    """Predicts what a rank holds, from what one device alone would.

    A share of parameters, gradients and optimizer state; the unit that is computed and the one
    gathered ahead of it, and the gradients of one before they are scattered; activations,
    temporaries and batch as they are.
    """
    shards = layout.num_shards(sharding)
    categories = {
        name: -(-size // shards) if name in _SHARED else size
        for name, size in whole.categories.items()
    }
    largest = sorted(units.parameters, reverse=True)[:2] if shards > 1 else []
    gathered = sum(largest) * units.gather_bytes + max(largest, default=0) * units.reduce_bytes
    categories["temporaries"] = categories.get("temporaries", 0) + gathered
    # Nothing, where the categories are complete.
    rest = whole.peak - sum(whole.categories.values())
    peak = sum(categories.values()) + rest
    # The largest unit at least is whole while it is computed.
    least = peak - gathered + max(largest, default=0) * units.gather_bytes
    return MemoryPrediction(
        peak=peak,
        lower=max(0, least - (whole.peak - whole.lower)),
        upper=peak + (whole.upper - whole.peak),
        categories=categories,
        operator=whole.operator,
        host=-(-whole.host // shards),
        origin=whole.origin,
    )
