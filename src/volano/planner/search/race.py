"""The race: which candidates run, in which order, and how long the search continues: as long as the
run's length pays for it."""

from __future__ import annotations

import contextlib
import math

from volano.device.work_rate import warm_clock
from volano.plan import Plan
from volano.planner.search.batch_share import PARTS_SHARE
from volano.planner.search.race_knobs import KnobRaces
from volano.planner.search.timed_candidates import (
    GUARD_SECONDS,
    GUARD_STEPS,
    MOST_TIMING_SECONDS,
)
from volano.planner.search.timing import Timing

# Seconds of a session: building the model, loading kernels.
_SESSION_SECONDS = 0.2
# The steps of a candidate that warm up and time.
_FEWEST_STEPS = 3


class CandidateRace(KnobRaces):
    """The race of one search; see :class:`volano.planner.search.timed_candidates.TimedCandidates`
    for its arguments and attributes."""

    def plans(self) -> list[Plan]:
        """Returns the plans that the race may run: the safe choices, then the others, plain eager
        last. Fewer threads are not among them: whether those help depends on what was measured."""
        eager = [plan for plan in (self._fitted(self.space.safe), *self.eager_plans()) if plan]
        compiled = [
            plan.pin(compile=True) for plan in eager if True in self.space.options["compile"]
        ]
        base = [self.space.base] if self._fitted(self.space.base) == self.space.base else []
        return [*dict.fromkeys([*eager, *compiled, *base])]

    def expected_seconds(self, num_steps: int) -> float:
        """Returns the seconds that the race and the guard are expected to take by predictions.

        Args:
            num_steps: the number of steps of the run.
        """
        plain = self._cost_model.time(self.space.base)
        step = 0.0 if plain is None else plain.step
        seconds = GUARD_SECONDS + GUARD_STEPS * step
        for plan in self.plans():
            predicted = self._cost_model.time(plan)
            startup = self._cost_model.startup(plan) if plan.compile else 0.0
            if not plan.compile or self._is_worth_compiling(num_steps * step, startup):
                of_plan = step if predicted is None else predicted.step
                seconds += _SESSION_SECONDS + startup + _FEWEST_STEPS * of_plan
                seconds += MOST_TIMING_SECONDS
        return seconds

    def probe(self, most_seconds: float) -> list[Timing]:
        """Times some steps of plain eager, and then of the safe choices without a kept prefix,
        before anything is predicted aloud, if each is expected to take no longer and surely fits;
        the race does not run them again. Memory that is given back is faulted in again by each
        step, which no prediction knows: so plain eager says less of the others than the safe
        choices do."""
        expected = self._cost_model.time(self.space.base)
        steps = 0.0 if expected is None else _FEWEST_STEPS * expected.step
        if expected is None or self._fits or _SESSION_SECONDS + steps > most_seconds:
            return []
        seconds = min(MOST_TIMING_SECONDS, most_seconds - steps)
        warm_clock(self._device)
        plans = (self.space.base, self.space.safe.pin(prefix=self.space.base.prefix))
        return [self._timing_runs.run(plan, seconds=seconds) for plan in dict.fromkeys(plans)]

    def close(self) -> None:
        """Restores what a probe has set; :meth:`run` does that itself."""
        self._timing_runs.close()

    def run(self) -> None:
        """Runs the whole race; if it has only parts of batches, what the first steps tell: the
        memory format and the precision, on top of the safe choices."""
        with contextlib.closing(self._timing_runs):
            warm_clock(self._device)
            if self.share < 1.0:
                self._run_on_parts()
            else:
                self._run()

    def _run_on_parts(self) -> None:
        self._enter(self.space.safe)
        for plan in self.eager_plans():
            run_seconds = self._time_budget.run_seconds
            if run_seconds is not None and self._time_budget.spent < PARTS_SHARE * run_seconds:
                self._enter(plan)

    def _run(self) -> None:
        if self._fitted(self.space.base) == self.space.base:  # plain eager itself, if that fits
            self._enter(self.space.base)
        narrow = self._most_promising()
        if narrow is None:
            self._enter_safe()
        else:
            # A short run has time for two timings, and pays for more by what the second one gains:
            # the safe choices are part of it, and alone gain less. They come last below, but for
            # one that gains too little to be checked: then they are taken instead.
            timing = self._enter(narrow)
            if timing != self.leader or not self.pays_for_guard(self._saved_by(timing)):
                self._enter(self.space.safe)
        for plan in self.eager_plans():
            self._try(plan)
        self._try_computed()
        self._try_threads()
        self._try_benchmarked()
        self._try_compiled()
        self._try_modes()
        self._try_graph()
        self.has_ended_early = all(map(self.space.is_trusted, self.timings))
        # A final holds several sessions, and a fitted plan has no room. It decides nothing between
        # choices that need no measuring.
        if not self._fits and not self.has_ended_early:
            self._timing_runs.final(self.cost)

    def _saved_by(self, timing: Timing) -> float:
        """Returns the seconds of the run that a candidate saves beside the best of those that need
        no check; infinite if none of them fits."""
        trusted = [one for one in self.ranking() if self.space.is_trusted(one.plan)]
        return self.cost(trusted[0]) - self.cost(timing) if trusted else math.inf

    def _most_promising(self) -> Plan | None:
        """Returns the likeliest candidate to be fast, if that is one in a narrower type, which a
        device is known to compute faster; None where memory decides which plans fit."""
        first = next(iter(self.eager_plans()), None)
        if first is None or self._fits or first.precision == self.space.base.precision:
            return None
        return first

    def _enter_safe(self) -> None:
        """Runs the safe choices in every way in which they fit; the other candidates use the
        fastest of these ways."""
        safe = self.space.safe
        fit = self._fits.get(safe.precision)
        if fit is None:
            self._enter(safe)
            return
        timings = [
            (number, self._enter(plan))
            for number in range(len(fit.ways))
            if (plan := fit.applied(safe, number))
        ]
        ran = [(number, timing) for number, timing in timings if timing.step is not None]
        if ran:
            self._way[safe.precision] = min(ran, key=lambda item: self.cost(item[1]))[0]
