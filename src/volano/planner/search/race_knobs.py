"""The races of single knobs, each on top of the best plan so far: which values are tried, and why
the others are not."""

from __future__ import annotations

import dataclasses
import time

from volano.plan import Plan
from volano.plan.explanation import Refusal
from volano.planner.search.gains import (
    AUTOTUNE_STARTUPS,
    BENCHMARK_SECONDS,
    autotune_gain,
    benchmark_gain,
    is_worth,
)
from volano.planner.search.timed_candidates import TimedCandidates
from volano.planner.search.timing import Timing

# A compilation is started only if there is time for so many of its predicted start-ups: 3 to 54 s
# were measured where 5 to 22 s were predicted. Fewer where it is known how long one takes here, if
# nobody was told how long the search will take.
_LATE, _LATE_WHERE_KNOWN = 2.0, 1.25
# Of plain eager's time: other knobs hardly save half of it, but keeping a frozen prefix may.
_FAR_BETTER = 0.5


class KnobRaces(TimedCandidates):
    """The races of single knobs."""

    def _try_computed(self) -> None:
        """Runs the best candidate without what is kept of a frozen prefix, unless that is far
        better than plain eager."""
        best = self.leader
        plain = self.timings.get(self.space.base)
        if best is None or best.plan.prefix == "computed" or plain is None or plain.step is None:
            return
        if self.cost(best) > _FAR_BETTER * self.cost(plain):
            self._try(best.plan.pin(prefix="computed"))

    def _try_threads(self) -> None:
        """Halves the number of threads for as long as that helps."""
        for threads in self.space.options["threads"][1:]:
            best = self.leader
            if best is None:
                return
            timing = self._try(best.plan.pin(threads=threads))
            if timing is None or timing.step is None or self.cost(timing) > self.cost(best):
                fewer = [value for value in self.space.options["threads"][1:] if value < threads]
                why = (
                    "planning may cost no more"
                    if timing is None
                    else f"{threads} are no faster than more are"
                )
                self._refuse(*(Refusal(knob="threads", value=value, reason=why) for value in fewer))
                return

    def _try_compiled(self) -> None:
        """Compiles the best eager candidate, if the possible saving exceeds the cost; then the
        others, as long as it helps and time is left."""
        best = self.leader
        if True not in self.space.options["compile"] or best is None or best.step is None:
            return
        whole = best.step if best.plan.prefix == "computed" else self._whole_step(best)
        if (1.0 - self._compile_gain) * whole * self.num_steps > self.cost(best):
            self._stop_compiling("what a frozen prefix computes is kept, and little else is left")
            return
        for plan in dict.fromkeys([best.plan, *self.eager_plans()]):
            compiled = self._compiled(plan, self.num_steps * whole)
            startup = self._cost_model.startup(compiled)
            if not self._is_worth_compiling(self.num_steps * whole, startup):
                saved = self._compile_gain * self.num_steps * whole
                self._stop_compiling(
                    f"it takes about {startup:.0f} s and may save {saved:.0f} s of this run"
                )
                return
            if self._is_too_large(compiled):
                self._stop_compiling("compiled it does not fit the budget")
                if self._request.is_thorough:
                    continue
                return
            mark = time.perf_counter()
            # What compiling took here may be far from the prediction, on a busy machine.
            taken = [timing.startup for plan, timing in self.timings.items() if plan.compile]
            is_known = self._cost_model.has_compiled and not self._request.is_free
            late = startup * (_LATE_WHERE_KNOWN if is_known else _LATE)
            timing = self._try(compiled, startup=max(late, *taken, 0.0))
            if timing is None:
                left = max(0.0, min(self.seconds_left, self._time_budget.left_in_all))
                self._stop_compiling(
                    f"it takes about {startup:.0f} s, perhaps {late:.0f}, and planning may cost "
                    f"{left:.1f} s more"
                )
                return
            if timing.step is not None and self.cost(timing) <= self.cost(self.ranking()[0]):
                if self._request.world_size == 1:  # other ranks compile again
                    self._time_budget.note_reused(min(timing.startup, time.perf_counter() - mark))
            elif not self._request.is_thorough:
                self._stop_compiling("another compiled candidate was no faster")
                return

    def _compiled(self, plan: Plan, run_seconds: float) -> Plan:
        """Returns the plan compiled in the first mode that is worth its start-up: as a whole, else
        by blocks that share their code."""
        compiled = plan.pin(compile=True, prefix="computed")
        for mode in self.space.options["compile_mode"]:
            in_mode = compiled.pin(compile_mode=mode)
            if (in_mode == compiled or mode != "max-autotune") and self._is_worth_compiling(
                run_seconds, self._cost_model.startup(in_mode)
            ):
                return in_mode
        return compiled

    def _try_modes(self) -> None:
        """Compiles the best compiled candidate in the other modes, where these may save more than
        they take."""
        best = self.leader
        known = {plan.compile_mode for plan in self.timings if plan.compile}
        for mode in self.space.options["compile_mode"][1:]:
            if mode in known:
                continue
            reason = "nothing that was compiled is the fastest"
            if best is not None and best.step is not None and best.plan.compile:
                reason = self._tried_in(mode, best, best.step)
            if reason is not None:
                self._refuse(Refusal(knob="compile_mode", value=mode, reason=reason))

    def _tried_in(self, mode: str, best: Timing, step: float) -> str | None:
        """Runs the best candidate compiled in another mode; returns why that is not done, or
        None."""
        startup, reason = best.startup, None
        if mode == "max-autotune":
            whole = self._cost_model.startup(best.plan.pin(compile_mode="whole"))
            startup = AUTOTUNE_STARTUPS * max(startup, whole)
            gain = autotune_gain(self._cost_model, best.plan)
            reason = self._why_not_worth(gain * step * self.num_steps, startup)
        elif not self._request.is_thorough:
            reason = "the whole is compiled already, and fuses no less"
        if reason is not None or self._try(best.plan.pin(compile_mode=mode), startup=startup):
            return reason
        return "planning may cost no more"

    def _try_benchmarked(self) -> None:
        """Runs the best candidate with algorithms of convolutions that the library has timed."""
        best = self.leader
        if True not in self.space.options["conv_benchmark"] or best is None or best.step is None:
            return
        gain = benchmark_gain(self._cost_model, best.plan)
        reason = self._why_not_worth(gain * best.step * self.num_steps, BENCHMARK_SECONDS)
        if self._fits:
            reason = "memory is short, and what the algorithms need is not known before they ran"
        if reason is None:
            tried = self._try(best.plan.pin(conv_benchmark=True), startup=BENCHMARK_SECONDS)
            reason = None if tried is not None else "planning may cost no more"
        if reason is not None:
            self._refuse(Refusal(knob="conv_benchmark", value=True, reason=reason))

    def _try_graph(self) -> None:
        """Records the steps of the best candidate, which costs about two of them."""
        best = self.leader
        if True not in self.space.options["graph"] or best is None:
            return
        if best.plan.prefix == "cached":
            reason = "what is kept of a frozen prefix is looked up on the host"
            self._refuse(Refusal(knob="graph", value=True, reason=reason))
        elif self._fits:
            reason = "memory is short, and a graph holds a step's memory of its own"
            self._refuse(Refusal(knob="graph", value=True, reason=reason))
        else:
            self._try(best.plan.pin(graph=True))

    def _why_not_worth(self, saved: float, startup: float) -> str | None:
        if self._request.is_thorough or is_worth(saved, startup):
            return None
        return f"it takes about {startup:.0f} s and may save {saved:.0f} s of this run"

    def _stop_compiling(self, reason: str) -> None:
        self.why_not_compiled = reason
        if not any(plan.compile for plan in self.timings):
            self._refuse(Refusal(knob="compile", value=True, reason=reason))

    def _refuse(self, *refusals: Refusal) -> None:
        self.space = dataclasses.replace(self.space, refused=(*self.space.refused, *refusals))
