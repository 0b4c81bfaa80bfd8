"""A worker: it has the device, and trains what a study assigns in packs."""

from __future__ import annotations

import gc
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import reason_of
from volano.packing import Pack, pack_size
from volano.packing.program_cache import ProgramCache
from volano.plan import Plan
from volano.study.workers.messages import Assignment, PackFigures, Report, TrialOutcome
from volano.study.workers.shared_features import SharedFeatures
from volano.study.workers.trial_tasks import Build, Cohort, TrialTask, TrialTasks, failure_of
from volano.task import Task
from volano.training.memory.out_of_memory import attempt


@dataclass(kw_only=True)
class _PackJob:
    """A group of candidates at the same step that train together: in a living pack that has them,
    or in a new one."""

    candidates: list[TrialTask]
    pack: Pack | None = None


@dataclass(frozen=True, kw_only=True)
class _Living:
    """A pack that is kept for the next assignment, with each member's task and the step at which it
    stands."""

    pack: Pack
    tasks: dict[int, Task]
    steps: dict[int, int]


class Worker:
    """Trains assignments on one device; lives in the process that has it.

    A pack is kept from one assignment to the next: if its trials come back they continue in it, and
    those that do not leave it. All else is made again from the states in the assignment.

    Args:
        build: ``(trial) -> Task``, called with a ``FixedTrial`` of Optuna's.
        device: the device as torch writes it; None is the accelerator, or the CPU without one.
        precision: the precision of the forward and backward pass: ``"fp32"``, ``"tf32"`` or
            ``"bf16"``.
        threads: the threads of the host; None leaves them as they are.
        engine: the engine of all packs; None finds the fastest for each.
        on_notice: the function that hears at once what the report says too.

    Raises:
        UsageError: the device is not one of this machine's.
        PlanError: it does not compute in that precision.
    """

    def __init__(
        self, build: Build, *, device: str | None = None, precision: str = "fp32",
        threads: int | None = None, engine: str | None = None,
        on_notice: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._device = Device(device)
        self._device.check_precision(precision)
        self._precision, self._threads, self._engine = precision, threads, engine
        self._on_notice = on_notice
        self._candidates = TrialTasks(build, SharedFeatures(self._device, precision, self._hear))
        self._living: list[_Living] = []
        # By kind: programs of earlier packs, members of a pack, steps of all packs as far as can be
        # foreseen, and how a faster engine has failed.
        self._families: dict[int, ProgramCache] = {}
        self._most: dict[int, int] = {}
        self._steps_ahead: Mapping[int, int] = {}
        self._only_loop: dict[int, str] = {}
        self._said: set[str] = set()
        self._notices: list[str] = []
        self._facts: list[PackFigures] = []

    def run(self, assignment: Assignment) -> Report:
        """Trains each trial up to the rung and evaluates it there.

        A trial whose ``build``, model or training raises fails alone. A pack that runs out of
        memory is trained again in halves, from the states in the assignment.

        Raises:
            ExploreError: a trial's task is on other data than the others'.
        """
        self._notices, self._facts = [], []
        with (
            self._device.settings(precision=self._precision, threads=self._threads),
            random_state_kept(self._device),
        ):
            candidates, done = self._candidates.of(assignment)
            jobs = self._jobs(candidates, assignment.runs_after)
            while jobs:
                done += self._done(jobs.pop(0), jobs, keep_states=assignment.keep_states)
        outcomes = {outcome.number: outcome for outcome in done}
        return Report(
            assignment=assignment.number,
            outcomes=tuple(outcomes[trial.number] for trial in assignment.trials),
            packs=tuple(self._facts),
            notices=tuple(self._notices),
            data=self._candidates.data,
        )

    # ---- who trains with whom

    def _jobs(self, candidates: Sequence[TrialTask], runs_after: float) -> list[_PackJob]:
        by_standing: dict[Cohort, list[TrialTask]] = {}
        for candidate in candidates:
            by_standing.setdefault(candidate.standing, []).append(candidate)
        living = [
            _PackJob(candidates=_that_go_on(one, candidates), pack=one.pack) for one in self._living
        ]
        self._living = []
        jobs: list[_PackJob] = []
        for standing, members in by_standing.items():
            most = self._most_members(standing.kind)
            lived = [
                job
                for job in living
                if job.candidates and {c.standing for c in job.candidates} == {standing}
            ]
            lived = sorted(
                (job for job in lived if len(job.candidates) <= most),
                key=lambda job: -len(job.candidates),
            )
            lived = lived[
                : packs_to_keep([len(job.candidates) for job in lived], len(members), most)
            ]
            taken = {candidate.number for job in lived for candidate in job.candidates}
            jobs += lived
            jobs += [
                _PackJob(candidates=part)
                for part in even_parts([c for c in members if c.number not in taken], most)
            ]
        self._steps_ahead = steps_ahead(jobs, runs_after)
        return jobs

    def _most_members(self, kind: int) -> int:
        if kind not in self._most:
            first = self._candidates.first(kind)
            size = pack_size(
                first.task, first.model, Plan.baseline(self._device.name), self._device
            )
            self._most[kind] = size.members
        return self._most[kind]

    # ---- one pack

    def _done(
        self, job: _PackJob, waiting: list[_PackJob], *, keep_states: bool
    ) -> list[TrialOutcome]:
        failure = None
        try:
            outcomes, reason = attempt(lambda: self._trained(job, keep_states=keep_states))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a person's code fails as it will
            outcomes, reason, failure = None, "", reason_of(error)
        if outcomes is not None:
            return outcomes
        job.pack = None
        if failure is not None:
            return self._one_by_one(job.candidates, failure, keep_states=keep_states)
        return self._smaller(job, waiting, reason, keep_states=keep_states)

    def _trained(
        self, job: _PackJob, *, keep_states: bool, engine: str | None = None
    ) -> list[TrialOutcome]:
        candidates, start = job.candidates, time.perf_counter()
        until = {candidate.number: candidate.standing.until for candidate in candidates}
        pack = job.pack
        if pack is None:
            pack = self._made(candidates, engine)
        elif set(pack.numbers) != until.keys():
            pack.keep(list(until))
        made = time.perf_counter()
        pack.advance(until)
        self._device.synchronize()
        trained = time.perf_counter()
        losses, metrics = pack.losses(), pack.evaluate()
        evaluated = time.perf_counter()
        states = pack.states() if keep_states else {}
        seconds = {
            "seconds": trained - start,
            "startup_seconds": made - start if job.pack is None else 0.0,
            "evaluation_seconds": evaluated - trained,
        }
        self._facts.append(self._facts_of(pack, candidates, seconds))
        if engine is None:
            self._living.append(
                _Living(pack=pack, tasks={c.number: c.task for c in candidates}, steps=until)
            )
        return [
            TrialOutcome(
                number=candidate.number,
                step=until[candidate.number],
                epoch=until[candidate.number] / candidate.task.steps_per_epoch,
                metrics=metrics[candidate.number],
                training_loss=losses[candidate.number],
                state=states.get(candidate.number),
            )
            for candidate in candidates
        ]

    def _facts_of(
        self, pack: Pack, candidates: Sequence[TrialTask], seconds: dict[str, float]
    ) -> PackFigures:
        kind, choice = candidates[0].standing.kind, pack.choice
        failed = (
            {"faster engines": f"one failed: {self._only_loop[kind]}"}
            if kind in self._only_loop
            else {}
        )
        return PackFigures(
            numbers=tuple(candidate.number for candidate in candidates),
            structure=self._candidates.structure(kind),
            engine=pack.engine,
            apart=self._candidates.reasons(kind),
            refused={**pack.refused, **failed},
            steps=sum(
                candidate.standing.until - candidate.standing.step for candidate in candidates
            ),
            solo_seconds_per_step=None
            if choice is None or pack.engine == "loop"
            else choice.solo_seconds,
            **seconds,
        )

    def _made(self, candidates: Sequence[TrialTask], engine: str | None) -> Pack:
        kind = candidates[0].standing.kind
        before = self._families.get(kind)
        pack = Pack(
            [candidate.member() for candidate in candidates],
            device=self._device.name,
            precision=self._precision,
            engine="loop" if kind in self._only_loop else engine or self._engine,
            family=before,
            num_steps=self._steps_ahead[kind],
            on_notice=self._hear,
        )
        # One in which more numbers vary takes more of the packs to come.
        if before is None or len(pack.family.structure.names) > len(before.structure.names):
            self._families[kind] = pack.family
        return pack

    # ---- what goes wrong

    def _smaller(
        self, job: _PackJob, waiting: list[_PackJob], reason: str, *, keep_states: bool
    ) -> list[TrialOutcome]:
        """Tries once more with the memory that idle packs held; then in halves."""
        others = [other for other in waiting if other.pack is not None]
        had_others = bool(self._living or others)
        self._living = []
        for other in others:
            other.pack = None
        gc.collect()
        self._device.release_memory()
        if had_others:
            return self._done(job, waiting, keep_states=keep_states)
        candidates = job.candidates
        if len(candidates) == 1:
            return [failure_of(candidates[0].trial, reason)]
        half = -(-len(candidates) // 2)
        self._most[candidates[0].standing.kind] = half
        self._hear(
            f"a pack of {len(candidates)} trials ran out of memory ({reason}); packs of {half} "
            "continue"
        )
        return [
            outcome
            for part in (candidates[:half], candidates[half:])
            for outcome in self._done(_PackJob(candidates=part), waiting, keep_states=keep_states)
        ]

    def _one_by_one(
        self, candidates: Sequence[TrialTask], failure: str, *, keep_states: bool
    ) -> list[TrialOutcome]:
        """Trains each alone in the plainest engine, so that only the trial to blame fails."""
        outcomes: list[TrialOutcome] = []
        for candidate in candidates:
            try:
                outcomes += self._trained(
                    _PackJob(candidates=[candidate]), keep_states=keep_states, engine="loop"
                )
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                outcomes.append(failure_of(candidate.trial, reason_of(error)))
        if len(candidates) > 1:
            self._hear(
                f"a pack of {len(candidates)} trials failed ({failure}); each was trained again "
                "alone"
            )
        if not any(outcome.failure for outcome in outcomes):
            self._hear(
                "none of them failed alone, so that the engine loop trains their like from here "
                f"on: {failure}"
            )
            self._only_loop[candidates[0].standing.kind] = failure
        return outcomes

    def _hear(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._notices.append(text)
            self._on_notice(text)


def steps_ahead(jobs: Sequence[_PackJob], runs_after: float) -> dict[int, int]:
    """Returns the expected pack-steps, by kind: those of jobs, and later ones, if trials continue
    as they are.

    Args:
        jobs: the jobs of an assignment.
        runs_after: whole runs of a trial that come after it.
    """
    steps: Counter[int] = Counter()
    num_trials = sum(len(job.candidates) for job in jobs)
    for job in jobs:
        first = job.candidates[0]
        # As many whole runs later for each trial, in packs of this size.
        later = runs_after / num_trials * first.task.num_steps
        steps[first.standing.kind] += first.standing.until - first.standing.step + round(later)
    return dict(steps)


def packs_to_keep(sizes: Sequence[int], num_members: int, most: int) -> int:
    """Returns how many of some living packs continue as they are, so that there are as few packs as
    possible.

    Args:
        sizes: the sizes of the living packs, largest first, each at most ``most``.
        num_members: the number of members that are to be trained: those of the living packs and
            others.
        most: members of a pack.
    """
    fewest = math.ceil(num_members / most)
    for kept in range(len(sizes), 0, -1):
        if kept + math.ceil((num_members - sum(sizes[:kept])) / most) <= fewest:
            return kept
    return 0


def even_parts(candidates: Sequence[TrialTask], most: int) -> list[list[TrialTask]]:
    """The candidates in order, in as few parts of at most ``most`` as can be, of nearly equal
    sizes."""
    num = math.ceil(len(candidates) / most)
    bounds = [part * len(candidates) // num for part in range(num + 1)] if num else []
    return [list(candidates[start:end]) for start, end in itertools.pairwise(bounds)]


def _that_go_on(living: _Living, candidates: Sequence[TrialTask]) -> list[TrialTask]:
    """The candidates that stand in a living pack where the assignment says that they stand."""
    return [
        candidate
        for candidate in candidates
        if living.tasks.get(candidate.number) is candidate.task
        and living.steps[candidate.number] == candidate.standing.step
    ]
