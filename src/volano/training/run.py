"""Runs a task under a plan, from an empty folder or a checkpoint to its end."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from volano.data import Fault
from volano.device import Device, Ranks, describe_machine, random_state_kept, versions
from volano.device.memory_limit import memory_limited
from volano.errors import RunError, VolanoError
from volano.plan import Plan
from volano.record.run_folder import PREPARED, QUARANTINE, ReadFolder, RunFolder
from volano.task import Task
from volano.training.checkpoints.checkpoint import (
    digest_of,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    path_of,
    set_aside_after,
    tidy,
)
from volano.training.checkpoints.weights import load_weights, save_weights
from volano.training.distributed.rank_watch import RankWatch
from volano.training.health.length_revision import LengthRevision, LengthRule
from volano.training.health.nonfinite_policy import NumericsPolicy
from volano.training.loop import TrainingLog, named_for_valid, run_loop
from volano.training.network_parts import network_parts
from volano.training.observe import Observer, Observers, StartInfo
from volano.training.safety import Safety
from volano.training.session import Session
from volano.training.signals import StopRequest

if TYPE_CHECKING:
    from volano.report.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended.

    Attributes:
        path: its folder.
        status: ``"finished"``, or ``"stopped"`` when it was asked to stop and can be resumed.
        model: the model with the final weights, on the plan's device, in evaluation mode; of a
            sharded run on the host if the device has no room for it, and in parts on ranks other
            than the first.
        plan: under which it ran.
        metrics: the metrics of the last evaluation (``valid_loss``, ...), and ``train_loss``.
        seconds: the seconds by phase.
        notices: texts that a person should read.
        details: figures of an application that are no metrics.
        verdict: what the figures are worth; None if the run was stopped.
    """

    path: Path
    status: str
    model: nn.Module = field(repr=False)
    plan: Plan
    metrics: dict[str, Any]
    seconds: dict[str, float]
    notices: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None


def run_task(
    task: Task,
    plan: Plan,
    folder: RunFolder,
    *,
    observer: Observer | None = None,
    source: dict[str, Any] | None = None,
    resume: bool = False,
    notices: tuple[str, ...] = (),
    safety: Safety | None = None,
    ranks: Ranks | None = None,
    may_split: bool | None = None,
    length: LengthRule | None = None,
) -> Run:
    """Trains, and leaves a complete run folder.

    Args:
        task: the task to train.
        plan: the plan under which it is trained.
        folder: a new one, or with ``resume`` that of a run of this task. It is held for this
            process meanwhile.
        observer: the observer that hears of the run.
        source: the way in which another process can make the task again, kept in ``run.json`` for
            ``volano resume``.
        resume: whether to continue from the last whole checkpoint, or from the first step if none
            was written yet.
        notices: the notices of the choices that led to the plan.
        safety: the safety settings of the run; None is the default, or with ``resume`` what the run
            had.
        ranks: the ranks with which this process trains together, joined already; all call this
            alike. None is alone.
        may_split: see :class:`Session`; None with ``resume`` is what the run had.
        length: the rule by which a new run of one process revises its number of steps, once.

    Raises:
        VolanoError: as its subclasses say. ``run.json`` then holds the reason, and checkpoints stay
            whole.
    """
    ranks = ranks or Ranks()
    if not ranks.is_first:
        folder, observer = ReadFolder(folder.path), None
    with folder.held(observer.on_notice if observer is not None else lambda _: None):
        if safety is None:
            safety = Safety.from_json(
                folder.read_json("run.json").get("safety") if resume else None
            )
        if may_split is None and resume:
            may_split = folder.read_json("run.json").get("may_split")
        return _run(
            task, plan, folder, observer, source,
            resume=resume, notices=notices, safety=safety, ranks=ranks, may_split=may_split,
            length=length,
        )  # fmt: skip


def prepare_run(
    task: Task,
    plan: Plan,
    folder: RunFolder,
    *,
    source: dict[str, Any] | None = None,
    notices: tuple[str, ...] = (),
    safety: Safety | None = None,
) -> None:
    """Writes all that a run's folder holds before its first step, so that ``run_task`` with
    ``resume`` begins there.

    For several ranks: the first prepares, and then none differs from the others. See ``run_task``
    for the arguments.
    """
    device = Device(plan.device)
    with random_state_kept(device):
        description = Session.describe(task)
    folder.write_json("task.json", description)
    folder.write_json("plan.json", plan.to_json())
    facts = _facts(task, source, device, safety or Safety())
    folder.update_run(status=PREPARED, num_steps=task.num_steps, notices=list(notices), **facts)


def load_run(task: Task, folder: RunFolder) -> Run:
    """A run that other processes trained.

    Raises:
        CheckpointError: its folder does not hold one that has ended.
    """
    record, plan = folder.read_json("run.json"), Plan.load(folder.path / "plan.json")
    device = Device(plan.device)
    with random_state_kept(device):
        model = Session.make_model(task).to(device.torch_device)
    load_weights(model, folder.path / "model.safetensors")
    return Run(
        path=folder.path,
        status=record["status"],
        model=model.eval(),
        plan=plan,
        metrics=dict(record.get("metrics") or {}),
        seconds=dict(record.get("seconds") or {}),
        notices=tuple(record.get("notices") or ()),
    )


def _facts(
    task: Task, source: dict[str, Any] | None, device: Device, safety: Safety
) -> dict[str, Any]:
    machine = asdict(describe_machine(device))
    return {
        "name": task.name, "source": source, "versions": versions(), "machine": machine,
        "safety": safety.to_json(),
    }  # fmt: skip


def _run(
    task: Task,
    plan: Plan,
    folder: RunFolder,
    observer: Observer | None,
    source: dict[str, Any] | None,
    *,
    resume: bool,
    notices: tuple[str, ...],
    safety: Safety,
    ranks: Ranks,
    may_split: bool | None,
    length: LengthRule | None,
) -> Run:
    keeper = _Keeper(folder)
    everyone = Observers(keeper, *([observer] if observer is not None else []))
    started = time.perf_counter()
    device = Device(plan.device)
    choices = [*notices]
    session: Session | None = None
    faults = _FaultList(folder, everyone)
    has_begun = not resume
    limit = memory_limited(device, safety.memory_limit)
    watch = RankWatch(ranks, everyone.on_notice)
    with random_state_kept(device), settings_of(plan, device), limit, watch:
        try:
            session = Session(
                task,
                plan,
                on_notice=choices.append,
                on_fault=faults,
                may_skip=safety.skip_bad_steps > 0,
                ranks=ranks,
                may_split=may_split,
            )
            log = TrainingLog(task.num_steps)
            recorded = folder.read_json("run.json").get("revision") if resume else None
            revision = LengthRevision(session, folder, everyone, length, recorded)
            policy = NumericsPolicy(session, folder, everyone, safety.skip_bad_steps)
            if resume:
                facts: dict[str, Any] = {"safety": safety.to_json()}
                choices += _load(session, log, policy, folder)
                keeper.take_up()
            else:
                facts = _facts(task, source, device, safety)
                folder.write_json("task.json", session.description)
            has_begun = True
            folder.write_json("plan.json", plan.to_json())
            # From here on it can be resumed: run.json says so last, when all that takes is there.
            facts |= {"num_steps": (recorded or {}).get("num_steps", task.num_steps)}
            facts |= {"notices": [*keeper.notices, *choices]}
            facts |= {"reason": None, "weights_sha256": None, "may_split": may_split}
            facts |= {"network": [asdict(part) for part in network_parts(session.model)]}
            folder.update_run(status="running", world_size=ranks.world_size, **facts)
            everyone.on_start(_start_info(session, folder))
            for notice in choices:
                everyone.on_notice(notice)
            session.tell(everyone.on_notice)
            session.step_once.on_relief = reliefs = _PlanChanges(session, folder, everyone)
            if session.prefix is not None:
                session.prefix.on_stop = reliefs.computes_prefix
            session.take_up_features()
            with StopRequest() as stop:
                status = run_loop(
                    session, folder, everyone, stop, log, policy, safety, revision, watch
                )
                if status == "finished" and session.best is not None:
                    everyone.on_notice(session.best.in_words())
                    keeper.metrics.update(named_for_valid(session.best.metrics))
                    folder.update_run(num_steps=session.step, kept_step=session.best.step)
                model = session.gathered()
                if ranks.is_first:
                    save_weights(model, folder.path / "model.safetensors")
                model = session.placed(model)
        except BaseException as error:
            reason = _reason_of(error)
            # A refused resume has not changed the run. On a full disk the first error is the
            # one to be told.
            if has_begun:
                with contextlib.suppress(RunError):
                    folder.check_held()
                    step = 0 if session is None else session.step
                    folder.update_run(
                        status="failed", reason=reason, step=step, notices=keeper.notices
                    )
            everyone.on_end("failed")
            raise
    if ranks.are_several and ranks.is_first:
        others = faults.num_of_others()
        if others:
            everyone.on_notice(
                f"{others} more corrupt examples, met by other ranks, are listed in {QUARANTINE}"
            )
    for name, error in folder.lost.items():
        everyone.on_notice(f"some lines of {name} could not be written: {error.strerror}")
    seconds = {**session.seconds, "total": time.perf_counter() - started}
    seconds = {name: round(value, 3) for name, value in seconds.items()}
    folder.update_run(
        status=status,
        step=session.step,
        weights_sha256=digest_of(folder.path / "model.safetensors") if ranks.is_first else None,
        metrics=keeper.metrics,
        seconds=seconds,
        notices=keeper.notices,
        reason=None,
        **_taken_up(session, folder),
    )
    everyone.on_end(status)
    return Run(
        path=folder.path,
        status=status,
        model=model.eval(),
        plan=session.plan,
        metrics=keeper.metrics,
        seconds=seconds,
        notices=tuple(keeper.notices),
    )


def _taken_up(session: Session, folder: RunFolder) -> dict[str, Any]:
    """Returns what keeping the outputs of frozen layers saved, measured, for ``run.json``; nothing
    on an accelerator, where a pass is not over when the host is done with it."""
    if session.prefix is None or not session.device.is_cpu or not session.prefix.use.num_taken:
        return {}
    use, before = session.prefix.use, folder.read_json("run.json").get("prefix") or {}
    return {
        "prefix": {
            "num_taken_up": use.num_taken + before.get("num_taken_up", 0),
            "saved_seconds": round(use.saved_seconds + before.get("saved_seconds", 0.0), 3),
        }
    }


def _reason_of(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, VolanoError) else f"{type(error).__name__}: {error}"


class _Keeper(Observer):
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
        """Implements :class:`Observer`."""
        self._folder.append("metrics.jsonl", record)
        self._note(record)

    def on_evaluation(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._folder.append("metrics.jsonl", record)
        self._note(record)

    def _note(self, record: dict[str, Any]) -> None:
        if "loss" in record:
            self.metrics["train_loss"] = record["loss"]
        else:
            self.metrics.update({name: value for name, value in record.items() if name != "step"})

    def on_preview(self, record: dict[str, Any]) -> None:
        """Implements :class:`Observer`."""
        self._folder.append("previews.jsonl", record)

    def on_notice(self, text: str) -> None:
        """Implements :class:`Observer`."""
        if text not in self.notices:  # a resumed run says some things again
            self.notices.append(text)


class _PlanChanges:
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
        self._folder.update_run(
            planned=record.get("planned") or self._session.plan.to_json(),
            reliefs=[
                *record.get("reliefs", []),
                {"step": step, "knobs": changes, "reason": reason},
            ],
        )
        self._session.take_plan(plan)
        self._folder.write_json("plan.json", plan.to_json())
        return changes


class _FaultList:
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
        return {(record["set"], record["index"]) for record in self._folder.read_lines(QUARANTINE)}

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


def _load(
    session: Session, log: TrainingLog, policy: NumericsPolicy, folder: RunFolder
) -> list[str]:
    """Takes up the last whole checkpoint, or the beginning if none was written. Gives what a person
    should know."""
    checkpoints, ranks = folder.path / "checkpoints", session.ranks
    description, record = folder.read_json("task.json"), folder.read_json("run.json")
    description, notices = _with_accepted(session, description, record)
    step, state, problems = 0, {}, []
    # It alone sees to the folder, and tells the others which checkpoint is whole.
    if ranks.is_first:
        tidy(checkpoints)
        if list_checkpoints(checkpoints):
            step, state, problems = load_latest(checkpoints)
    step = int(ranks.tell(str(step)))
    if step:
        path = path_of(checkpoints, step)
        if not ranks.is_first:
            state = load_checkpoint(path, verify=False)[1]
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
        accepted = {name: session.description["code"][name] for name in notes}
        folder.update_run(accept=[], accepted={**(record.get("accepted") or {}), **accepted})
    ranks.tell()  # no rank adds a line before the first rank has done with the old ones
    return notices


def _with_accepted(
    session: Session, description: dict[str, Any], record: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Returns a run's description with the code that a person has accepted since it began, and
    what is new in it."""
    own, then = session.description["code"], description.get("code")
    if then is None:
        return description, []
    now = {**then, **(record.get("accepted") or {})}
    changed = [name for name in record.get("accept") or () if now.get(name) != own[name]]
    code = {**now, **{name: own[name] for name in changed}}
    notices = [f"the code of {name} is not that with which the run began" for name in changed]
    return {**description, "code": code}, notices


def _start_info(session: Session, folder: RunFolder) -> StartInfo:
    return StartInfo(
        name=session.task.name,
        folder=str(folder.path),
        first_step=session.step,
        num_steps=session.task.num_steps,
        steps_per_epoch=session.order.steps_per_epoch,
        batch_size=session.task.batch_size,
        device=session.device.name,
        num_parameters=sum(parameter.numel() for parameter in session.model.parameters()),
    )


def settings_of(plan: Plan, device: Device) -> AbstractContextManager[None]:
    """A context in which the plan's process-wide settings hold."""
    return device.settings(
        precision=plan.precision,
        threads=plan.threads,
        allocator=plan.allocator,
        conv_benchmark=plan.conv_benchmark,
    )
