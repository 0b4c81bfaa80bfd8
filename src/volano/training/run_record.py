"""Writes what happens into a run's folder, and takes up from there what a resumed run needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from volano.data import Fault
from volano.plan import Plan
from volano.record.run_folder import PREPARED, QUARANTINE, RunFolder
from volano.training.checkpoints.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    path_of,
    set_aside_after,
    tidy_checkpoints,
)
from volano.training.health.nonfinite_policy import NumericsPolicy
from volano.training.loop import TrainingLog
from volano.training.memory.out_of_memory import is_out_of_memory
from volano.training.observe import Observer
from volano.training.session import Session


class RunKeeper(Observer):
    """Writes what happens into the run's folder."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.metrics: dict[str, float] = {}
        self.notices: list[str] = []

    def take_up(self) -> None:
        """Takes over figures and notices of a resumed run, which may have nothing left to do."""
        record = self._folder.read_json("run.json")
        if record.get("status") != PREPARED:  # those of a prepared one are reported when it starts
            self.notices = list(record.get("notices") or [])
        for record in self._folder.read_lines("metrics.jsonl"):
            self._note(record)

    def on_log(self, record: dict[str, Any]) -> None:
        self._folder.append("metrics.jsonl", record)
        self._note(record)

    on_evaluation = on_log

    def _note(self, record: dict[str, Any]) -> None:
        if "loss" in record:
            self.metrics["train_loss"] = record["loss"]
        else:
            self.metrics.update({name: value for name, value in record.items() if name != "step"})

    def on_preview(self, record: dict[str, Any]) -> None:
        self._folder.append("previews.jsonl", record)

    def on_notice(self, text: str) -> None:
        if text not in self.notices:  # a resumed run says some things again
            self.notices.append(text)


class PlanChanges:
    """Notes each change of plan while training: ``plan.json`` is the one in force, ``run.json``
    has the first."""

    def __init__(self, session: Session, folder: RunFolder, observer: Observer) -> None:
        self._session, self._folder, self._observer = session, folder, observer

    def __call__(self, plan: Plan, reason: str, step: int) -> None:
        """Takes the plan under which a step that ran out of memory is repeated."""
        knobs = ", ".join(f"{n}={value}" for n, value in self._take(plan, reason, step).items())
        self._observer.on_notice(
            f"step {step} ran out of memory and is repeated with {knobs}: {reason}"
        )

    def computes_prefix(self, reason: str) -> None:
        """Takes the plan without what frozen layers computed before."""
        step = self._session.step
        self._take(self._session.plan.pin(prefix="computed"), reason, step)
        self._observer.on_notice(
            f"frozen layers are computed at each step from {step} on: {reason}"
        )

    def _take(self, plan: Plan, reason: str, step: int) -> dict[str, Any]:
        changes = {name: value for name, (value, _) in plan.changes(self._session.plan).items()}
        record = self._folder.read_json("run.json")
        relief = {"step": step, "knobs": changes, "reason": reason}
        self._folder.update_run(
            planned=record.get("planned") or self._session.plan.to_json(),
            reliefs=[*record.get("reliefs", []), relief],
        )
        self._session.plan = plan  # under which the steps are made already
        self._folder.write_json("plan.json", plan.to_json())
        return changes


class FaultList:
    """Lists corrupt examples in ``quarantine.jsonl``, each once, and tells of the first few."""

    _NUM_TOLD = 3

    def __init__(self, folder: RunFolder, observer: Observer) -> None:
        self._folder, self._observer = folder, observer
        self._known = self._listed()
        self._num_before, self._num_own = len(self._known), 0

    def num_of_others(self) -> int:
        """Returns how many were listed meanwhile by other ranks."""
        return len(self._listed()) - self._num_before - self._num_own

    def _listed(self) -> set[tuple[str, int]]:
        lines = self._folder.read_lines(QUARANTINE)
        found = ((line.get("set"), line.get("index")) for line in lines)
        return {(s, i) for s, i in found if isinstance(s, str) and isinstance(i, int)}

    def __call__(self, name: str, fault: Fault) -> None:
        if (name, fault.index) not in self._known:
            self._known |= self._listed()  # another rank may have met it
        if (name, fault.index) in self._known:
            return
        self._known.add((name, fault.index))
        self._num_own += 1
        self._folder.append(QUARANTINE, {"set": name, **asdict(fault)})
        if len(self._known) <= self._NUM_TOLD:
            more = "; more go to quarantine.jsonl" if len(self._known) == self._NUM_TOLD else ""
            where = fault.path or f"example {fault.index} of {name}"
            self._observer.on_notice(f"corrupt, replaced by another: {where}: {fault.reason}{more}")


def take_up_run(
    session: Session, log: TrainingLog, policy: NumericsPolicy, folder: RunFolder
) -> list[str]:
    """Takes up the last whole checkpoint of a run, or its beginning if none was written. Returns
    what a person should know."""
    checkpoints, ranks = folder.path / "checkpoints", session.ranks
    description, record = folder.read_json("task.json"), folder.read_json("run.json")
    with folder.as_written(is_out_of_memory):
        description, notices = _with_accepted(session, description, record)
    step, state, problems = 0, {}, []
    # It alone sees to the folder, and tells the others which checkpoint is whole.
    if ranks.is_first:
        tidy_checkpoints(checkpoints)
        if list_checkpoints(checkpoints):
            step, state, problems = load_latest(checkpoints)
    step = int(ranks.tell(str(step)))
    if step:
        path = path_of(checkpoints, step)
        if not ranks.is_first:
            state = load_checkpoint(path, verify=False)[1]
        with folder.as_written(is_out_of_memory):
            session.load_state_dict(state, description, path)
            log.load_state_dict(state["log"])
            policy.load_state_dict(state.get("numerics", policy.state_dict()))
        if ranks.is_first:
            set_aside_after(checkpoints, step)
        notices += [
            f"a later checkpoint is damaged and was passed over: {problem}" for problem in problems
        ]
    else:
        session.check_same_task(description.get("digest"), description)
        if record.get("status") == PREPARED:
            notices += record.get("notices") or []
        else:
            notices.append("no checkpoint had been written yet: the run begins at its first step")
    for name in ("metrics.jsonl", "previews.jsonl", "numerics.jsonl", QUARANTINE):
        folder.keep_until(name, step)
    if notes := record.get("accept"):
        own = session.code_as_in(description)
        accepted = {name: own[name] for name in notes if name in own}
        folder.update_run(accept=[], accepted={**(record.get("accepted") or {}), **accepted})
    ranks.tell()  # no rank adds a line before the first rank has done with the old ones
    return notices


def _with_accepted(
    session: Session, description: dict[str, Any], record: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Returns a run's description with the code that a person has accepted since it began, and
    what is new in it."""
    own, then = session.code_as_in(description), description.get("code")
    if not isinstance(then, dict):
        return description, []
    now = {**then, **(record.get("accepted") or {})}
    changed = [name for name in record.get("accept") or () if now.get(name) != own.get(name)]
    code = {**now, **{name: own[name] for name in changed if name in own}}
    notices = [f"the code of {name} is not that with which the run began" for name in changed]
    return {**description, "code": code}, notices
