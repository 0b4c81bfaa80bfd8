"""Races plans of a script: each in a child of its own, against the script as it is, which runs
before, between and after them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from volano.errors import ScriptError, VolanoError, first_line
from volano.record.format import bytes_text, ms_text
from volano.script.plan import ScriptPlan
from volano.script.search.candidates import PlanToTry, other_threads
from volano.script.search.explanation import ScriptCandidate, candidate_line
from volano.script.search.guard import FirstResults, ScriptGuard
from volano.script.watch.launch import ScriptRunner, WatchedRun
from volano.thread_waits import SHORT_SPIN_COUNT, environment_as_given, leaves_waits_open

# A script that takes longer to begin may have made what is there the next time.
_LONG_STARTUP_SECONDS = 10.0
# A gain below this is noise on any machine.
_LEAST_GAIN = 1.03
# Runs of the same script that differ by more, or a run that gains as much by fewer threads, tell of
# threads that wait for one without a core.
_CONTENDED = 1.25
_LARGER_PEAK = 1.1  # of the script's own: said
# Half of the threads gain as much only where the others have no cores.
_GAIN_OF_FEWER = 2.0
# So many are confirmed by a second run.
_MOST_CONFIRMED = 2
# What is as fast as this alone may still gain beside the fastest: bf16 does nothing for a script
# that waits for its data, and much for one whose data come in time.
_LEAST_BESIDE = 0.9
# Convolutions in a narrow type may be slow but in channels_last, and that slow but in a narrow one.
_LEAST_OF_A_PAIR = 0.7
# A candidate is timed for so long, or so many steps if they take longer.
_SECONDS, _STEPS = 2.0, 4
# As it is twice more, with other threads, two plans alone and together; the best and the script
# again.
_RUNS_OF_A_RACE = 9
_LONGEST_CHILD = 8.0  # times as long as the script needs to its end, compiling left out


class ScriptRace:
    """The race of one script.

    Args:
        runner: runs the script.
        base: what was seen of it as it is.
        deadline: when the race must be over, by ``time.monotonic``.
        is_bound: whether a run that would end after it is stopped.
        steps: the most steps that are measured in a run.
        say: called with a line for each candidate.

    Attributes:
        candidates: what became of each, in their order.
        notices: what else must be known.
    """

    def __init__(
        self,
        runner: ScriptRunner,
        base: WatchedRun,
        *,
        deadline: float,
        is_bound: bool = False,
        steps: int | None,
        say: Callable[[str], Any],
    ) -> None:
        self._runner, self._say = runner, say
        self._deadline, self._is_bound = deadline, is_bound
        self._base = [base]
        self._repeated: WatchedRun | None = None
        self._has_reference: bool | None = None  # None: not tried
        self._proved: dict[Any, bool] = {}  # of plans that were run in float64
        self._first = _computed(base)
        self._guard: ScriptGuard | None = None
        self._limits: dict[str, float] = {"seconds": max(_SECONDS, _STEPS * base.step_seconds)}
        if steps is not None:
            self._limits["steps"] = steps
        self.candidates: list[ScriptCandidate] = []
        self.notices: list[str] = []

    def run(self, candidates: Sequence[PlanToTry]) -> ScriptCandidate | None:
        """Tries candidates, most promising first, then the best of them together. Returns the one
        to take, or None if none is faster and computes the same."""
        if not candidates:
            return None
        try:
            if not self._has_time(num_children=3):  # two for the guard, one for a plan
                self._repeat_if_long()
            if not self._has_time(num_children=2 + (self._repeated is None)):
                self._note_no_time()
                return None
            self._prepare_guard()
        except ScriptError as error:
            self.notices.append(
                f"it does not run a second time: {first_line(error)} If it meets files of the "
                "first run, give their folder as `scratch`"
            )
            return None
        if self._guard is None:
            return None
        waits = self._shorten_waits()
        for number, candidate in enumerate(candidates):
            if not self._has_time(num_children=2):
                rest = ", ".join(left.plan.in_words() for left in candidates[number:])
                self.notices.append(f"no time was left to try {rest}")
                break
            self._try(dataclasses.replace(candidate.plan, spin_count=waits))
        self._measure_base()
        return self._choose()

    @property
    def base_seconds(self) -> float:
        """The seconds of a step of the script as it is: the median of its runs, of two the
        faster."""
        return statistics.median_low(seen.step_seconds for seen in self._base)

    def _repeat_if_long(self) -> None:
        """Runs the script again if its beginning took long: what it made then is there now."""
        if self._base[0].startup_seconds > _LONG_STARTUP_SECONDS and not self._is_bound:
            self._repeated = self._seen(ScriptPlan())
            self._base.append(self._repeated)

    def _note_no_time(self) -> None:
        needed = _RUNS_OF_A_RACE * (self._base[-1].startup_seconds + self._limits["seconds"])
        least = 10 * math.ceil(needed / 10)
        self.notices.append(f"no time was left to try plans: give `seconds` {least} or more")

    def _prepare_guard(self) -> None:
        """Runs the script again, as it is and with other threads; there is a guard afterwards if
        plans can be compared with it."""
        threads = ScriptPlan(threads=other_threads(self._base[0].record["facts"]))
        rounded = self._seen(threads)
        if self._repeated is None:
            self._repeated = self._seen(ScriptPlan())
            self._base.append(self._repeated)
        guard = ScriptGuard(self._first, _computed(self._repeated), _computed(rounded))
        if guard.why_not is not None:
            self.notices.append(f"no plan can be compared with it: {guard.why_not}")
            return
        if not guard.is_reproducible:
            self.notices.append("two runs of the script as it is differ in the last bits")
        self._guard = guard
        if rounded.record["facts"].get("threads", threads.threads) == threads.threads:
            self._judge(threads, rounded)
        else:
            reason = "the script sets its number of threads itself"
            self._note(ScriptCandidate(plan=threads, status="failed", reason=reason))

    def _shorten_waits(self) -> int | None:
        """Has threads wait for a shorter time where they seem to wait for one without a core, and
        it helps. Returns the setting for what is tried after it."""
        threads = self._base[0].record["facts"].get("threads") or 1
        times = [seen.step_seconds for seen in self._base]
        fewer = [one for one in self.candidates if (one.plan.threads or threads) < threads]
        least = min([*times, *(one.seconds for one in fewer if one.seconds is not None)])
        is_contended = threads > 1 and max(times) / least >= _CONTENDED
        if not (is_contended and leaves_waits_open(environment_as_given())):
            return None
        if not self._has_time(num_children=2):
            return None
        plan = ScriptPlan(spin_count=SHORT_SPIN_COUNT)
        self._try(plan)
        tried = self.candidates[-1]
        has_helped = tried.status == "measured" and (tried.gain or 0.0) >= _CONTENDED
        return plan.spin_count if has_helped else None

    def _try(self, plan: ScriptPlan) -> None:
        try:
            seen = self._seen(plan)
        except VolanoError as error:
            self._note(ScriptCandidate(plan=plan, status="failed", reason=first_line(error)))
            return
        if not plan.is_empty and not seen.record.get("deeds") and _wants_deeds(plan):
            left = "; ".join(seen.record.get("left", ())) or "there is nothing that it applies to"
            self._note(ScriptCandidate(plan=plan, status="failed", reason=left))
            return
        self._judge(plan, seen)

    def _judge(self, plan: ScriptPlan, seen: WatchedRun) -> None:
        status, reason = self._checked(plan, seen)
        startup = min(base.startup_seconds for base in self._base)
        self._note(
            ScriptCandidate(
                plan=plan,
                status=status,
                seconds=seen.step_seconds,
                gain=self.base_seconds / seen.step_seconds,
                startup_seconds=seen.startup_seconds - startup,
                reason=reason + self._larger_peak(seen),
            )
        )

    def _checked(self, plan: ScriptPlan, seen: WatchedRun) -> tuple[str, str]:
        """Returns what has become of a plan that has run, and why."""
        assert self._guard is not None
        found = _computed(seen)
        verdict = self._guard.check(plan, found)
        if not verdict.passed and plan.semantics() != "exact" and self._refer():
            verdict = self._guard.check(plan, found)
            if not verdict.passed and _can_be_proved(plan):
                proved = self._guard.check(plan, found, is_same_in_float64=True)
                if proved.passed and self.base_seconds / seen.step_seconds < _LEAST_GAIN:
                    return "slower", f"no faster, and so not looked into: {verdict.reason}"
                if proved.passed and self._is_same_in_float64(plan):
                    verdict = proved
        return "measured" if verdict.passed else "struck", verdict.reason

    def _larger_peak(self, seen: WatchedRun) -> str:
        """Returns what is to be said of a plan that takes more memory than the script."""
        peaks = [one.record.get("peak_bytes") or 0 for one in (seen, *self._base)]
        is_larger = peaks[0] > _LARGER_PEAK * max(peaks[1:]) > 0
        return f"; peak memory {bytes_text(peaks[0])}" if is_larger else ""

    def _refer(self) -> bool:
        """Runs the script's first steps in float64, once, if there is time. Returns whether they
        are a reference."""
        assert self._guard is not None
        facts = self._base[0].record["facts"]
        if self._has_reference is None and self._has_time(num_children=1):
            self._has_reference = False
            if not facts.get("autocast") and not facts.get("is_compiled"):
                with contextlib.suppress(ScriptError):
                    self._has_reference = self._guard.refer_to(self._in_float64(ScriptPlan()))
        return bool(self._has_reference)

    def _is_same_in_float64(self, plan: ScriptPlan) -> bool:
        """Returns whether a plan computes in float64 what the script does there."""
        assert self._guard is not None
        # Nothing else of it shows in float64.
        arithmetic = plan.memory_format, plan.fused, plan.cudnn_benchmark
        if arithmetic not in self._proved and self._has_time(num_children=1):
            with contextlib.suppress(ScriptError):
                found = self._in_float64(plan)
                self._proved[arithmetic] = self._guard.is_same_in_float64(found)
        return self._proved.get(arithmetic, False)

    def _in_float64(self, plan: ScriptPlan) -> FirstResults:
        limits: dict[str, float] = {"steps": _STEPS}
        return _computed(
            self._runner.run(plan, limits=limits, seconds=self._longest(), is_reference=True)
        )

    def _note(self, candidate: ScriptCandidate) -> None:
        self.candidates.append(candidate)
        for line in candidate_line(candidate):
            self._say(line)

    def _choose(self) -> ScriptCandidate | None:
        least = max(_LEAST_GAIN, self._spread(), self._chance())
        winners = _compatible([], self._fastest_first(least))
        if len(winners) > 1 and self._has_time(num_children=1):
            self._try_once(_together(winners))
        self._try_beside_the_fastest(least)
        self._note_plans_for_now()
        return self._confirmed(least)

    def _fastest_first(self, least_gain: float) -> list[ScriptCandidate]:
        """Returns what computes the same and is so many times as fast at least, in order."""
        found = [one for one in self._sound() if (one.gain or 0.0) >= least_gain]
        return sorted(found, key=lambda one: one.seconds or 0.0)

    def _try_beside_the_fastest(self, least: float) -> None:
        """Tries the fastest with what gains nothing alone: with all of it, then with one after the
        other. What is faster by that is the fastest from then on."""
        fastest = next(iter(self._fastest_first(least)), None)
        if fastest is None:
            return
        others = [
            one for one in self._fastest_first(_LEAST_BESIDE) if _own_settings(one) != {"threads"}
        ]
        pair = self._narrow_and_channels_last()
        for some in ([*others, *pair], pair, *([one] for one in others)):
            found = _compatible([fastest], some)
            if len(found) > 1 and self._has_time(num_children=3):
                self._try_once(_together(found))
                fastest = self._fastest_first(least)[0]

    def _narrow_and_channels_last(self) -> list[ScriptCandidate]:
        """Returns both, if they are sound and not slow beyond hope; else none."""
        found: list[ScriptCandidate] = []
        for setting in ("precision", "memory_format"):
            found += [
                one for one in self.candidates
                if _own_settings(one) == {setting} and one.status in ("measured", "slower")
                and (one.gain or 0.0) >= _LEAST_OF_A_PAIR
            ][:1]  # fmt: skip
        if len(found) < 2:
            return []
        unproved = [one for one in found if one.status == "slower"]
        return found if all(self._is_same_in_float64(one.plan) for one in unproved) else []

    def _try_once(self, plan: ScriptPlan) -> None:
        if not any(one.plan == plan for one in self.candidates):
            self._try(plan)

    def _confirmed(self, least: float) -> ScriptCandidate | None:
        """Runs the fastest once more, and then the script beside it: the same process may take a
        third longer the next time, whatever it does. Returns it with the slower of its two runs; if
        that gains too little, the next one."""
        fastest = sorted(self._sound(), key=lambda one: one.seconds or 0.0)
        for plan in [one.plan for one in fastest[:_MOST_CONFIRMED]]:
            best = self._measured(plan)
            if (best.gain or 0.0) < _LEAST_GAIN:
                return None
            has_time, enough = self._has_time(num_children=2), max(least, self._spread())
            if (best.gain or 0.0) >= enough and has_time:
                with contextlib.suppress(VolanoError):  # then the first run stands alone
                    best = self._run_again(best)
                    enough = max(least, self._spread())
            if (best.gain or 0.0) >= (enough if has_time else max(enough, _CONTENDED)):
                return best
            self._note_noise(best)
        return None

    def _run_again(self, best: ScriptCandidate) -> ScriptCandidate:
        again = self._seen(best.plan).step_seconds
        self._measure_base()
        self._say(
            f"      again {ms_text(again)}, the script {ms_text(self._base[-1].step_seconds)}"
        )
        slower = dataclasses.replace(best, seconds=max(best.seconds or 0.0, again))
        self.candidates[self.candidates.index(best)] = slower
        return self._measured(best.plan)

    def _measured(self, plan: ScriptPlan) -> ScriptCandidate:
        """Returns a sound candidate, with its gain over the script in all runs until now."""
        return next(one for one in self._sound() if one.plan == plan)

    def _note_plans_for_now(self) -> None:
        for one in self.candidates:
            is_faster = one.status == "measured" and (one.gain or 0.0) >= _LEAST_GAIN
            if is_faster and self._is_for_now(one.plan):
                self.notices.append(
                    f"{one.plan.in_words()} is not taken: other processes compute here, and on a "
                    "quiet machine it may be slower"
                )

    def _note_noise(self, best: ScriptCandidate) -> None:
        times = [seen.step_seconds for seen in self._base]
        self.notices.append(
            f"{best.plan.in_words()} took {ms_text(best.seconds or 0.0)} a step, and is not taken: "
            f"the script as it is took {ms_text(min(times))} to {ms_text(max(times))} in its "
            f"{len(times)} runs, so that the difference may be chance. More is known with more "
            "`seconds`, and on a machine with less to do"
        )

    def _sound(self) -> list[ScriptCandidate]:
        """Returns what computes the same, with gains over the script in all its runs."""
        self.candidates = [
            one if one.seconds is None
            else dataclasses.replace(one, gain=self.base_seconds / one.seconds)
            for one in self.candidates
        ]  # fmt: skip
        return [
            one for one in self.candidates
            if one.status == "measured" and not self._is_for_now(one.plan)
        ]  # fmt: skip

    def _is_for_now(self, plan: ScriptPlan) -> bool:
        """Returns whether a plan is faster because other processes compute: fewer threads alone,
        where the script's own runs differ, shorter waits help, or half of the threads do. It would
        be slower on a quiet machine, for which it is remembered too."""
        threads = self._base[0].record["facts"].get("threads") or 1
        if plan.num_workers or not (plan.threads or threads) < threads:
            return False
        times = [seen.step_seconds for seen in self._base]
        short = [one for one in self.candidates if one.plan.settings().keys() == {"spin_count"}]
        gains = [max(times) / min(times), *(one.gain or 1.0 for one in short)]
        own = [one.gain or 1.0 for one in self.candidates if one.plan == plan]
        return max(gains) >= _CONTENDED or max(own, default=1.0) >= _GAIN_OF_FEWER

    def _spread(self) -> float:
        """Returns how many times as long the script's median run took as its fastest, of two runs
        the slower one: a single run beside something else says nothing of the others."""
        times = [seen.step_seconds for seen in self._base]
        return statistics.median_high(times) / min(times)

    def _chance(self) -> float:
        """Returns the gain that chance may give if the script ends before it is measured for long:
        three standard errors of a difference between two runs."""
        record = self._base[0].record
        times = record.get("each_step_seconds", ())
        if record.get("status") != "ended" or len(times) < 2:
            return 1.0
        error = statistics.stdev(times) / statistics.fmean(times) / math.sqrt(len(times))
        return 1.0 + 3.0 * math.sqrt(2.0) * error

    def _measure_base(self) -> None:
        if self._has_time(num_children=2):
            with contextlib.suppress(ScriptError):  # what was found stands
                self._base.append(self._seen(ScriptPlan()))

    def _has_time(self, num_children: int) -> bool:
        needed = num_children * (self._base[-1].startup_seconds + self._limits["seconds"])
        return time.monotonic() + needed < self._deadline

    def _seen(self, plan: ScriptPlan) -> WatchedRun:
        most = self._longest(is_compiled=plan.compile is not None)
        return self._runner.run(plan, limits=self._limits, seconds=most)

    def _longest(self, *, is_compiled: bool = False) -> float:
        """Returns how long a run may take."""
        usual = self._base[0].startup_seconds + self._limits["seconds"]
        most, left = max(_LONGEST_CHILD * usual, 60.0), self._deadline - time.monotonic()
        if self._is_bound:
            return max(1.0, min(most, left))
        return most if is_compiled else max(2 * usual, min(most, left))


def _can_be_proved(plan: ScriptPlan) -> bool:
    """Returns whether float64 says something of a plan: not of one in half precision, nor of a
    compiled program, which is another there."""
    return plan.precision is None and plan.compile is None


def _computed(seen: WatchedRun) -> FirstResults:
    return FirstResults.of(seen.record["losses"], seen.gradients, seen.record["draws"])


def _own_settings(candidate: ScriptCandidate) -> set[str]:
    """Returns the settings that a candidate does not share with all others."""
    found = set(candidate.plan.settings())
    return found - {"spin_count"} or found


def _compatible(
    taken: Sequence[ScriptCandidate], others: Sequence[ScriptCandidate]
) -> list[ScriptCandidate]:
    """Returns the candidates that are taken, and those of the others that share no setting with
    one before."""
    found = list(taken)
    for candidate in others:
        if not any(_own_settings(candidate) & _own_settings(other) for other in found):
            found.append(candidate)
    return found


def _together(winners: Sequence[ScriptCandidate]) -> ScriptPlan:
    settings = [one.plan.settings() for one in winners]
    return ScriptPlan(**{name: value for one in settings for name, value in one.items()})


def _wants_deeds(plan: ScriptPlan) -> bool:
    """Returns whether a plan changes objects of the script, not settings of the process alone."""
    of_process = {"threads", "cudnn_benchmark", "allocator", "spin_count"} | (
        {"precision"} if plan.precision == "tf32" else set()
    )
    return bool(plan.settings().keys() - of_process)
