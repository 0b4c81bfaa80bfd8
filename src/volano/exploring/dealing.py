"""Which worker trains which trials: evenly, and each where its state lives as far as that goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def deal(numbers: Iterable[int], workers: Sequence[int], homes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    """Trials for each worker that gets any.

    Args:
        numbers: of the trials.
        workers: that are idle, at least one.
        homes: of trials: the worker that trained it last, where one did.

    Returns:
        numbers by worker, in order; no worker has two more than another.
    """
    ordered = sorted(numbers)
    base, rest = divmod(len(ordered), len(workers))
    at_home = {worker: [n for n in ordered if homes.get(n) == worker] for worker in workers}
    # Those with most at home take one more where it does not come out even.
    eager = sorted(workers, key=lambda worker: (-len(at_home[worker]), worker))
    room = {worker: base + (rank < rest) for rank, worker in enumerate(eager)}
    dealt = {worker: at_home[worker][: room[worker]] for worker in workers}
    taken = {number for mine in dealt.values() for number in mine}
    others = iter([number for number in ordered if number not in taken])
    for worker in workers:
        while len(dealt[worker]) < room[worker]:
            dealt[worker].append(next(others))
    return {worker: tuple(sorted(mine)) for worker, mine in dealt.items() if mine}
