"""The workers of a study: what each has in hand, and what becomes of it when one is lost."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from volano.errors import ExploreError
from volano.study.successive_halving import Round
from volano.study.workers.executor import Executor
from volano.study.workers.messages import Assignment, Lost, Report, Trial

# If a worker dies with its trials, it cannot be known which of them did it. They start again in
# fours of parts, so that one that ends its worker each time soon stands alone: of a pack of 1,024
# after five times.
_NUM_PARTS = 4
_MOST_IN_A_ROW = 6


@dataclass(frozen=True, kw_only=True)
class WorkInHand:
    """The work that a worker has in hand."""

    assignment: int
    round: Round
    numbers: tuple[int, ...]


class WorkerPool:
    """Hands rounds to workers.

    Args:
        executor: the executor that has them.
        shares: the shares of a run at which the rungs stand.
        trial_of: the function that gives the trial of a number as it stands.
    """

    def __init__(
        self, executor: Executor, shares: Sequence[float], trial_of: Callable[[int], Trial]
    ) -> None:
        self._executor, self._shares, self._trial_of = executor, shares, trial_of
        self._idle = set(range(executor.num_workers))
        self._in_hand: dict[int, WorkInHand] = {}
        self._queue: deque[tuple[Round, tuple[int, ...]]] = deque()
        self._num_assignments = 0
        self._losses_in_a_row: Counter[int] = Counter()  # by worker
        self._losses: Counter[int] = Counter()  # by trial
        self._runs_after = 0.0

    @property
    def num_workers(self) -> int:
        """The number of workers that are not given up."""
        return len(self._idle) + len(self._in_hand)

    @property
    def num_assignments(self) -> int:
        """The number of assignments handed out so far."""
        return self._num_assignments

    @property
    def is_working(self) -> bool:
        """Returns whether any worker has work."""
        return bool(self._in_hand)

    @property
    def is_free(self) -> bool:
        """Returns whether some worker has nothing to do while no rung waits for its quorum."""
        return (
            bool(self._idle)
            and not self._queue
            and all(hand.round.is_decided for hand in self._in_hand.values())
        )

    @property
    def away(self) -> frozenset[int]:
        """Returns the numbers of the trials that are handed out."""
        return frozenset(number for _, numbers in self._under_way() for number in numbers)

    def in_hand(self) -> Counter[int]:
        """Returns how many trials are handed out, by the rung to which they are trained."""
        counts: Counter[int] = Counter()
        for round_, numbers in self._under_way():
            counts[round_.rung] += len(numbers)
        return counts

    def is_under_way(self, round_: Round) -> bool:
        """Returns whether any worker works for a round, or will."""
        return any(other is round_ for other, _ in self._under_way())

    def _under_way(self) -> Iterator[tuple[Round, tuple[int, ...]]]:
        yield from ((hand.round, hand.numbers) for hand in self._in_hand.values())
        yield from self._queue

    def begin(
        self, round_: Round, numbers: Sequence[int], homes: Mapping[int, int], *, runs_after: float
    ) -> None:
        """Deals trials to the idle workers.

        Args:
            round_: theirs.
            numbers: the numbers of the trials.
            homes: the worker that trained a trial last.
            runs_after: whole runs of a trial that the study is expected to train after this round.
        """
        self._runs_after = runs_after / self.num_workers
        for worker, mine in deal(numbers, sorted(self._idle), homes).items():
            self._submit(worker, round_, mine)

    def go_on(self) -> None:
        """Hands what a lost worker has left behind to those that are idle.

        Raises:
            ExploreError: no worker is left.
        """
        while self._queue and self._idle:
            self._submit(min(self._idle), *self._queue.popleft())
        if not self.num_workers:
            raise ExploreError(
                "A study must have a living worker",
                got=f"none: each was lost {_MOST_IN_A_ROW} times in a row",
                remedy="Mend what ended them; the trials' last states are kept: continue with "
                "`resume`",
            )

    def _submit(self, worker: int, round_: Round, numbers: tuple[int, ...]) -> None:
        assignment = Assignment(
            number=self._num_assignments,
            trials=tuple(self._trial_of(number) for number in numbers),
            share=self._shares[round_.rung],
            keep_states=round_.rung != len(self._shares) - 1,
            runs_after=self._runs_after,
        )
        self._num_assignments += 1
        self._idle.discard(worker)
        self._in_hand[worker] = WorkInHand(
            assignment=assignment.number, round=round_, numbers=numbers
        )
        self._executor.submit(worker, assignment)

    def next(self) -> tuple[int, Report | Lost] | None:
        """Waits for an answer."""
        return self._executor.next_finished(None)

    def take_back(self, worker: int, answer: Report | Lost) -> WorkInHand:
        """Takes back what the worker had in hand, and returns it."""
        hand = self._in_hand.pop(worker)
        assert answer.assignment == hand.assignment
        if isinstance(answer, Report):
            self._losses_in_a_row[worker] = 0
            self._idle.add(worker)
        return hand

    def lose(self, worker: int, hand: WorkInHand) -> tuple[int, ...]:
        """A worker was lost: it is started again, unless that has happened too often; its trials
        are handed out again, in smaller parts. Gives the numbers of those that are to blame: alone
        in hand, not for the first time, and the worker had answered just before.
        """
        was_well = self._losses_in_a_row[worker] == 0
        self._losses_in_a_row[worker] += 1
        if self._losses_in_a_row[worker] < _MOST_IN_A_ROW:
            self._idle.add(worker)
        self._losses.update(hand.numbers)
        if len(hand.numbers) == 1 and was_well and self._losses[hand.numbers[0]] > 1:
            return hand.numbers
        size = -(-len(hand.numbers) // _NUM_PARTS)
        for start in range(0, len(hand.numbers), size):
            self._queue.append((hand.round, hand.numbers[start : start + size]))
        return ()


def deal(
    numbers: Iterable[int], workers: Sequence[int], homes: Mapping[int, int]
) -> dict[int, tuple[int, ...]]:
    """Returns the trials for each worker that gets any.

    Args:
        numbers: the numbers of the trials.
        workers: the workers that are idle, at least one.
        homes: the worker that trained each trial last, if one did.

    Returns:
        numbers by worker, in order; no worker has two more than another.
    """
    ordered = sorted(numbers)
    base, rest = divmod(len(ordered), len(workers))
    at_home = {worker: [n for n in ordered if homes.get(n) == worker] for worker in workers}
    # Those with most at home take one more if it does not come out even.
    eager = sorted(workers, key=lambda worker: (-len(at_home[worker]), worker))
    room = {worker: base + (rank < rest) for rank, worker in enumerate(eager)}
    dealt = {worker: at_home[worker][: room[worker]] for worker in workers}
    taken = {number for mine in dealt.values() for number in mine}
    others = iter([number for number in ordered if number not in taken])
    for worker in workers:
        while len(dealt[worker]) < room[worker]:
            dealt[worker].append(next(others))
    return {worker: tuple(sorted(mine)) for worker, mine in dealt.items() if mine}
