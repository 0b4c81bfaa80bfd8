"""The study's loop: asks for trials, hands them to workers rung by rung, keeps and cuts, and leaves
a folder.

A pack is kept full: as long as trials are left to ask for, ``width`` of them are trained to the
first rung at a time, and survivors wait there until they fill a pack of their own. So the sampler
learns from each batch, and the upper rungs, where few are left, are run by as many together as
there are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from volano.errors import ExploreError
from volano.record.study_folder import STATES, StudyFolder
from volano.study.ask_trials import Asked, TrialSource
from volano.study.observe import Announcements, StudyObserver
from volano.study.settings import StudySettings
from volano.study.successive_halving import Round, SuccessiveHalving
from volano.study.time_left import TimeEstimate
from volano.study.trial_ledger import TrialLedger
from volano.study.trial_states import TrialStates
from volano.study.workers.assignments import WorkerPool, WorkInHand
from volano.study.workers.executor import Executor
from volano.study.workers.messages import Lost, Report, Trial, TrialOutcome
from volano.training.signals import Interruption

# So many trials that fail while no other has shown a number are no accident of the sampler's
# choice.
_MOST_FAILURES = 10


@dataclass(kw_only=True)
class _Live:
    """A trial that waits for a rung, or is on its way to it."""

    rung: int
    state: dict[str, Any] | None = None
    home: int | None = None


class StudyLoop:
    """Drives a study to its end.

    Args:
        settings: the settings of the study.
        folder: the folder, held by this process.
        ledger: its accounts.
        trial_source: the source of trials.
        rungs: the rungs, which decide.
        executor: the executor, which trains.
        observer: the observer that hears of it.

    Attributes:
        end_reason: why the study ended before all its trials had been asked for and had ended; or
            None.
        notice: tells what a person should know, once.
    """

    def __init__(
        self, settings: StudySettings, folder: StudyFolder, *, ledger: TrialLedger,
        trial_source: TrialSource, rungs: SuccessiveHalving, executor: Executor,
        observer: StudyObserver,
    ) -> None:  # fmt: skip
        self._settings, self._ledger, self._rungs = settings, ledger, rungs
        self._trial_source = trial_source
        self._pool = WorkerPool(executor, rungs.shares, self._trial)
        self._states = TrialStates(folder.path / STATES)
        self._time_left = TimeEstimate(rungs.shares, settings.eta)
        self._said = Announcements(settings, ledger, rungs, self._time_left, observer)
        self.notice = self._said.notice
        self._live: dict[int, _Live] = {}
        # By rung: trials of a resumed study that had arrived when it was killed.
        self._undecided: dict[int, set[int]] = {}
        self._began = 0.0
        self._startups: dict[int, float] = {}  # seconds in this round, by worker
        self._may_ask = True
        self.end_reason: str | None = None

    # ---- beginning

    def take_up(self, orphans: list[int]) -> None:
        """Continues with the trials in the ledger.

        Args:
            orphans: the trials that were asked for and not noted.
        """
        for number in orphans:
            self._ledger.asked(self._ledger.handle(number))
        missing = 0
        for number in sorted(self._ledger.live):
            trial = self._ledger.trials[number]
            # It had reached the end when the study was killed, and Optuna was not told.
            if trial.rungs and trial.rungs[-1].rung == self._rungs.last:
                self._end_last(number)
                continue
            state = self._states.load(number) if trial.rungs else None
            missing += bool(trial.rungs) and state is None
            reached = trial.rungs[-1].rung if trial.rungs else -1
            self._live[number] = _Live(rung=reached + 1, state=state)
            if trial.rungs and not self._ledger.was_decided(number, reached):
                self._undecided.setdefault(reached, set()).add(number)
        if missing:
            self.notice(
                f"the states of {missing} trials are missing or damaged: they start again from "
                "their first step"
            )

    def _end_last(self, number: int) -> None:
        kept, _ = self._rungs.decide(self._rungs.last, [number])
        if kept:
            self._ledger.ended(number, "complete")
        else:
            self._ledger.ended(number, "pruned", self._why_cut(self._rungs.last, number))

    # ---- the loop

    def run(self) -> str:
        """Runs to the end. Gives ``"finished"``, or ``"stopped"`` when it was asked to stop or its
        time was over."""
        with Interruption() as stop:
            try:
                while self._hand_out(stop):
                    with stop.waiting():
                        answer = self._pool.next()
                    if answer is not None:
                        self._take_in(*answer)
            except KeyboardInterrupt:
                self.end_reason = "it was asked to stop"
                return "stopped"
        if not self._live:
            self._check_anything_trained()
        return "stopped" if self._live else "finished"

    def _hand_out(self, stop: Interruption) -> bool:
        """Hands idle workers what is next; returns whether any worker has work."""
        self._pool.go_on()
        if not self._pool.is_free:
            return True
        rung, numbers = self._choose(stop)
        if not numbers:
            return self._pool.is_working
        arrived = self._undecided.pop(rung, set())
        # One worker waits for no other, and two for each other: what they find depends on no
        # timing, nor on a loss.
        quorum = self._settings.quorum if self._pool.num_workers > 2 else 1.0
        round_ = Round(rung, {*numbers, *arrived}, quorum)
        for number in arrived:
            round_.arrive(number)
        homes = {n: home for n in numbers if (home := self._live[n].home) is not None}
        self._began = time.perf_counter()
        self._startups.clear()
        self._pool.begin(round_, numbers, homes, runs_after=self._runs_after(rung, numbers))
        self._tell_where_it_stands()
        return True

    def _runs_after(self, rung: int, numbers: Collection[int]) -> float:
        """Returns the whole runs of a trial that are expected after a round."""
        waiting = Counter(live.rung for number, live in self._live.items() if number not in numbers)
        on_the_way = self._time_left.runs_to_end(
            {**waiting, rung: waiting[rung] + len(numbers)}, self._num_new
        )
        return on_the_way - len(numbers) * self._time_left.distance(rung)

    @property
    def _num_left(self) -> int:
        """Returns the number of trials that have not been asked for."""
        return self._settings.trials - len(self._ledger.trials)

    @property
    def _num_new(self) -> int:
        """Returns the number of trials that are still to be asked for."""
        return self._num_left if self._may_ask else 0

    def _trial(self, number: int) -> Trial:
        # Optuna's own values, not what JSON made of them.
        params = dict(self._ledger.handle(number).params)
        return Trial(number=number, params=params, state=self._live[number].state)

    # ---- what is next

    def _choose(self, stop: Interruption) -> tuple[int, tuple[int, ...]]:
        """The rung and the trials that are trained next; none when there is nothing to do."""
        if self._is_time_over():
            return 0, ()
        # Rungs at which no other trial is awaited.
        for rung in [rung for rung in self._undecided if not self._waiting(rung)]:
            self._settle(rung)
        width = self._settings.width
        # Full packs of survivors come first, from the top: they are nearest to a result.
        for rung in range(self._rungs.last, 0, -1):
            if len(self._waiting(rung)) >= width and (full := self._recheck(rung)):
                return rung, full
        fresh = max(0, width - len(self._waiting(0)) - len(self._undecided.get(0, ())))
        if self._may_ask:
            self._ask(fresh, stop)
            stop.check()
        # Now new trials, or what is left: packs that no later trial will fill.
        for rung in range(len(self._rungs.shares)):
            if numbers := self._recheck(rung):
                return rung, numbers
        return 0, ()

    def _settle(self, rung: int) -> None:
        arrived = self._undecided.pop(rung)
        round_ = Round(rung, arrived, 1.0)
        for number in arrived:
            round_.arrive(number)
        self._decide(round_)
        self._save()

    def _waiting(self, rung: int) -> tuple[int, ...]:
        away = self._pool.away.union(*self._undecided.values())
        return tuple(
            sorted(n for n, live in self._live.items() if live.rung == rung and n not in away)
        )

    def _recheck(self, rung: int) -> tuple[int, ...]:
        """Returns the trials that wait for a rung, without any that later cohorts have pushed out
        of the best meanwhile."""
        waiting = self._waiting(rung)
        if rung == 0 or not waiting:
            return waiting
        kept, cut = self._rungs.decide(rung - 1, waiting)
        if cut:
            self._cut(rung - 1, cut)
            self._said.decided(rung - 1, (), cut)
            self._save()
        return kept

    def _ask(self, count: int, stop: Interruption) -> None:
        count = self._that_fit(min(count, self._num_left))
        if count <= 0:
            return
        self._trial_source.prepare(len(self._ledger.trials), self._ledger.live)
        asked: list[Asked] = []
        try:
            for _ in range(count):
                if stop.requested or self._trial_source.is_exhausted:
                    break
                asked.append(self._trial_source.ask())
                # Others see it at once; when it is noted, it is ours even if this process is
                # killed.
                if self._ledger.is_shared:
                    self._note_asked(asked)
        finally:
            # Trials before one that raises are noted too, in Optuna's study first: see
            # study/trial_ledger.py.
            self._ledger.save()
            self._note_asked(asked)
        if self._trial_source.is_exhausted and self._may_ask:
            self._may_ask = False
            self.notice(
                f"the sampler has nothing left to give after {len(self._ledger.trials)} trials"
            )
        self._save()

    def _note_asked(self, asked: list[Asked]) -> None:
        """Takes them off the list."""
        while asked:
            trial, state, reason = asked.pop(0)
            number = self._ledger.asked(trial)
            if state is None:
                self._live[number] = _Live(rung=0)
            else:
                self._ledger.ended(number, state, reason)
                if state == "failed":
                    self._said.failed(number, reason or "")

    # ---- the minutes

    def _that_fit(self, count: int) -> int:
        """Returns how many of so many new trials can end within the minutes. If none can and no
        other is under way, the study ends."""
        if self._settings.minutes is None or count <= 0:
            return count
        waiting = {rung: len(self._waiting(rung)) for rung in range(len(self._rungs.shares))}
        left = self._settings.minutes * 60 - self._ledger.seconds
        needed = 0.0
        for number in range(count, 0, -1):
            needed = self._time_left.seconds_to_end(waiting, number, self._settings.width)
            if needed is None or needed <= left:
                return number
        if not self._live:
            self._may_ask = False
            self.end_reason = (
                f"{self._num_left} trials are left, of which one would take about {needed:.0f} s "
                f"to its end; {max(left, 0):.0f} s of its {self._settings.minutes:g} minutes were"
            )
        return 0

    def _is_time_over(self) -> bool:
        minutes = self._settings.minutes
        if minutes is None or self._ledger.seconds < minutes * 60 or not self._pool.num_assignments:
            return False
        if self._live or self._num_left:
            left = f"; {self._num_left} trials were not asked for" if self._num_left else ""
            self.end_reason = f"its {minutes:g} minutes were over{left}"
        return True

    # ---- answers

    def _take_in(self, worker: int, answer: Report | Lost) -> None:
        hand = self._pool.take_back(worker, answer)
        if isinstance(answer, Lost):
            self._lose(worker, hand, answer.reason)
        else:
            self._note(worker, hand, answer)
        if hand.round.is_due:
            self._decide(hand.round)
        if not self._pool.is_under_way(hand.round):
            self._time_round(hand.round)
        # Trials that were cut at once need no state.
        for number in hand.numbers:
            live = self._live.get(number)
            if live is not None and live.state is not None and isinstance(answer, Report):
                self._states.save(number, live.state)
        self._save()
        self._tell_where_it_stands()
        if self._ledger.best is None and self._ledger.count("failed") >= _MOST_FAILURES:
            self._check_anything_trained()

    def _time_round(self, round_: Round) -> None:
        seconds = time.perf_counter() - self._began
        self._said.training_seconds += seconds
        # Programs that were made serve later rounds too.
        startup_seconds = max(self._startups.values(), default=0.0)
        self._time_left.note(round_.num_trials, round_.rung, max(0.0, seconds - startup_seconds))

    def _note(self, worker: int, hand: WorkInHand, report: Report) -> None:
        self._ledger.check_data(report.data)
        for text in report.notices:
            self.notice(text)
        seconds: dict[int, float] = {}
        for facts in report.packs:
            self._ledger.packed(
                facts, assignment=report.assignment, rung=hand.round.rung, worker=worker
            )
            seconds |= {number: facts.seconds / len(facts.numbers) for number in facts.numbers}
            self._startups[worker] = self._startups.get(worker, 0.0) + facts.startup_seconds
        for outcome in report.outcomes:
            self._note_outcome(worker, hand.round, outcome, seconds.get(outcome.number, 0.0))

    def _note_outcome(
        self, worker: int, round_: Round, outcome: TrialOutcome, seconds: float
    ) -> None:
        number = outcome.number
        if outcome.failure is not None:
            self._fail(round_, number, outcome.failure)
            self._said.failed(number, outcome.failure)
            return
        if self._settings.metric not in outcome.metrics:
            raise ExploreError(
                "`metric` must name a figure of the evaluation",
                got=f"{self._settings.metric!r}, and the evaluation gives "
                f"{', '.join(sorted(outcome.metrics))}",
                remedy="Name one of those, or return it in the metrics of volano.Loss",
            )
        live = self._live[number]
        live.state, live.home, live.rung = outcome.state, worker, round_.rung + 1
        self._ledger.shown(outcome, round_.rung, seconds=seconds, worker=worker)
        round_.arrive(number)

    def _fail(self, round_: Round, number: int, reason: str) -> None:
        round_.give_up(number)
        del self._live[number]
        self._ledger.ended(number, "failed", reason)

    def _lose(self, worker: int, hand: WorkInHand, reason: str) -> None:
        self._ledger.lost(worker, hand.numbers, reason)
        for number in hand.numbers:
            self._live[number].home = None
        guilty = self._pool.lose(worker, hand)
        what_follows = (
            "it was alone in hand each time, and fails"
            if guilty
            else "they start again from their last rung"
        )
        self.notice(
            f"worker {worker} was lost ({reason}) with {len(hand.numbers)} trials: {what_follows}"
        )
        for number in guilty:
            self._fail(hand.round, number, f"its worker was lost with it again and again: {reason}")

    # ---- decisions

    def _decide(self, round_: Round) -> None:
        rung, numbers = round_.rung, round_.undecided
        kept, cut = self._rungs.decide(rung, numbers)
        round_.decided(numbers)
        self._cut(rung, cut)
        if rung == self._rungs.last:
            for number in kept:
                del self._live[number]
                self._ledger.ended(number, "complete")
        self._said.decided(rung, kept, cut)

    def _cut(self, rung: int, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            del self._live[number]
            self._ledger.ended(number, "pruned", self._why_cut(rung, number))

    def _why_cut(self, rung: int, number: int) -> str:
        values, metric = self._rungs.values(rung), self._settings.metric
        value = values[number]
        if value != value:
            return f"{metric} is no finite number at rung {rung + 1}"
        return (
            f"{metric} {value:.6g} is not among the best 1/{self._settings.eta} of "
            f"{len(values)} at rung {rung + 1}"
        )

    def _check_anything_trained(self) -> None:
        if self._ledger.best is not None:
            return
        reason = self._ledger.last_reason
        why_none = (
            f"{self._settings.metric} of each is no finite number"
            if reason is None
            else f"the last failure: {reason}"
        )
        raise ExploreError(
            "A study must have a trial that trains to a value that is a number",
            got=f"none of {len(self._ledger.trials)}; {why_none}",
            remedy="Train one alone: volano.train(build(optuna.trial.FixedTrial({...})))",
        )

    # ---- telling

    def _save(self) -> None:
        self._said.save()
        self._states.keep_only(self._live)

    def _tell_where_it_stands(self) -> None:
        rungs = (live.rung for live in self._live.values())
        self._said.stand(rungs, self._pool.in_hand(), self._num_new)
