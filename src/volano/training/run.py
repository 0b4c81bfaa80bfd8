"""Runs a task under a plan, from an empty folder or a checkpoint to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from volano.device import Device, Ranks, describe_machine, random_state_kept, versions
from volano.device.memory_limit import memory_limited
from volano.errors import RunError, in_words
from volano.plan import Plan
from volano.record.run_folder import (
    PREPARED,
    QUARANTINE,
    ReadFolder,
    RunFolder,
    revisions_of,
)
from volano.task import Task
from volano.training.checkpoints.checkpoint import digest_of
from volano.training.checkpoints.weights import load_weights, save_weights
from volano.training.distributed.rank_watch import RankWatch
from volano.training.graphs.compiling import settings_of
from volano.training.health.length_revision import LengthRevision, LengthRule
from volano.training.health.nonfinite_policy import NumericsPolicy
from volano.training.loop import TrainingLog, TrainingLoop, named_for_valid
from volano.training.memory.out_of_memory import MaySplit
from volano.training.network_parts import network_parts
from volano.training.observe import Observer, Observers, StartInfo
from volano.training.run_record import FaultList, PlanChanges, RunKeeper, take_up_run
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
    plan: Plan = field(repr=False)
    metrics: dict[str, Any]
    seconds: dict[str, float]
    notices: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a run, besides its task, its plan and its folder.

    Attributes:
        observer: the observer that hears of the run.
        source: the way in which another process can make the task again, kept in ``run.json`` for
            ``volano resume``.
        resume: whether to continue from the last whole checkpoint, or from the first step if none
            was written yet.
        notices: the notices of the choices that led to the plan.
        safety: the safety settings of the run; None is the default, or with ``resume`` what the run
            had.
        ranks: the ranks with which this process trains together, joined already; all train alike.
            None is alone.
        may_split: see :class:`Session`; with ``resume`` what the run had is taken, if it knew it.
        length: the rule by which a new run of one process revises its number of steps, once.
    """

    observer: Observer | None = None
    source: dict[str, Any] | None = None
    resume: bool = False
    notices: tuple[str, ...] = ()
    safety: Safety | None = None
    ranks: Ranks | None = None
    may_split: MaySplit = None
    length: LengthRule | None = None


def run_task(task: Task, plan: Plan, folder: RunFolder, **settings: Any) -> Run:
    """Trains, and leaves a complete run folder.

    Args:
        task: the task to train.
        plan: the plan under which it is trained.
        folder: a new one, or with ``resume`` that of a run of this task. It is held for this
            process meanwhile.
        settings: see :class:`RunSettings`.

    Raises:
        VolanoError: as its subclasses say. ``run.json`` then holds the reason, and checkpoints stay
            whole.
    """
    given = RunSettings(**settings)
    if given.ranks is not None and not given.ranks.is_first:
        folder, given = ReadFolder(folder.path), dataclasses.replace(given, observer=None)
    with folder.held((given.observer or Observer()).on_notice):
        return _Training(task, plan, folder, given).run()


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

    For several ranks: the first prepares, and then none differs from the others. See
    :class:`RunSettings` for the arguments.
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
        path=folder.path, status=record["status"], model=model.eval(), plan=plan,
        metrics=dict(record.get("metrics") or {}), seconds=dict(record.get("seconds") or {}),
        notices=tuple(record.get("notices") or ()),
    )  # fmt: skip


def _facts(
    task: Task, source: dict[str, Any] | None, device: Device, safety: Safety
) -> dict[str, Any]:
    machine = asdict(describe_machine(device))
    return {
        "name": task.name, "source": source, "versions": versions(), "machine": machine,
        "safety": safety.to_json(),
    }  # fmt: skip


class _Training:
    """A run, from an empty folder or a checkpoint to its end."""

    def __init__(self, task: Task, plan: Plan, folder: RunFolder, given: RunSettings) -> None:
        self._task, self._plan, self._folder, self._given = task, plan, folder, given
        self._started = time.perf_counter()
        before = folder.read_json("run.json") if given.resume else {}
        self._safety = given.safety or Safety.from_json(before.get("safety"))
        known = before.get("may_split")
        self._may_split: MaySplit = given.may_split if known is None else known
        self._ranks = given.ranks or Ranks()
        self._device = Device(plan.device)
        self._keeper = RunKeeper(folder)
        listening = [] if given.observer is None else [given.observer]
        self._everyone = Observers(self._keeper, *listening)
        self._faults = FaultList(folder, self._everyone)
        self._session: Session | None = None
        self._has_begun = not given.resume

    def run(self) -> Run:
        """Trains; see :func:`run_task`."""
        settings = settings_of(self._plan, self._device, self._everyone.on_notice)
        limit = memory_limited(self._device, self._safety.memory_limit)
        watch = RankWatch(self._ranks, self._everyone.on_notice)
        with random_state_kept(self._device), limit, watch:
            try:
                with settings:  # which say what an operation lacks that a plan asks for
                    session, status, model = self._trained(watch)
            except BaseException as error:
                self._note_failure(error)
                raise
        return self._ended(session, status, model)

    def _trained(self, watch: RankWatch) -> tuple[Session, str, nn.Module]:
        notices = [*self._given.notices]
        self._session = session = Session(
            self._task, self._plan, on_notice=notices.append, on_fault=self._faults,
            may_skip=self._safety.skip_bad_steps > 0, ranks=self._ranks, may_split=self._may_split,
        )  # fmt: skip
        folder, everyone = self._folder, self._everyone
        log = TrainingLog(self._task.num_steps)
        recorded = folder.read_json("run.json") if self._given.resume else {}
        policy = NumericsPolicy(session, folder, everyone, self._safety.skip_bad_steps)
        loop = TrainingLoop(
            session=session, folder=folder, observer=everyone, log=log, policy=policy,
            safety=self._safety, watch=watch,
            revision=LengthRevision(session, folder, everyone, self._given.length, recorded),
        )  # fmt: skip
        if self._given.resume:
            facts: dict[str, Any] = {"safety": self._safety.to_json()}
            notices += take_up_run(session, log, policy, folder)
            self._keeper.take_up()
        else:
            facts = _facts(self._task, self._given.source, self._device, self._safety)
            folder.write_json("task.json", session.description)
        self._has_begun = True
        revisions = revisions_of(recorded)
        facts["num_steps"] = revisions[-1]["num_steps"] if revisions else self._task.num_steps
        self._begin(session, facts, notices)
        with StopRequest() as stop:
            status = loop.run(stop)
            return session, status, self._kept(session, status)

    def _begin(self, session: Session, facts: dict[str, Any], notices: list[str]) -> None:
        """Writes and says what is known before the first step."""
        folder, everyone = self._folder, self._everyone
        folder.write_json("plan.json", self._plan.to_json())
        # From here on it can be resumed: run.json says so last, when all that takes is there.
        folder.update_run(
            status="running", world_size=self._ranks.world_size, **facts,
            notices=[*self._keeper.notices, *notices], reason=None, weights_sha256=None,
            may_split=None if callable(self._may_split) else self._may_split,
            deterministic=self._plan.deterministic,
            network=[asdict(part) for part in network_parts(session.model)],
        )  # fmt: skip
        everyone.on_start(_start_info(session, folder))
        for notice in notices:
            everyone.on_notice(notice)
        session.tell(everyone.on_notice)
        session.step_once.on_relief = reliefs = PlanChanges(session, folder, everyone)
        if session.prefix is not None:
            session.prefix.on_stop = reliefs.computes_prefix
        session.take_up_features()

    def _kept(self, session: Session, status: str) -> nn.Module:
        """Returns the model that is kept, and writes its weights."""
        if status == "finished" and session.best is not None:
            self._everyone.on_notice(session.best.in_words())
            self._keeper.metrics.update(named_for_valid(session.best.metrics))
            self._folder.update_run(num_steps=session.step, kept_step=session.best.step)
        model = session.gathered()
        if self._ranks.is_first:
            save_weights(model, self._folder.path / "model.safetensors")
        return session.placed(model)

    def _note_failure(self, error: BaseException) -> None:
        # A refused resume has not changed the run. On a full disk the first error is the one to be
        # told.
        if self._has_begun:
            with contextlib.suppress(RunError):
                self._folder.check_held()
                step = 0 if self._session is None else self._session.step
                reason = "interrupted" if isinstance(error, KeyboardInterrupt) else in_words(error)
                notices = self._keeper.notices
                self._folder.update_run(status="failed", reason=reason, step=step, notices=notices)
        self._everyone.on_end("failed")

    def _ended(self, session: Session, status: str, model: nn.Module) -> Run:
        folder, keeper, is_first = self._folder, self._keeper, self._ranks.is_first
        if self._ranks.are_several and is_first and (others := self._faults.num_of_others()):
            self._everyone.on_notice(
                f"{others} more corrupt examples, met by other ranks, are listed in {QUARANTINE}"
            )
        for name, error in folder.lost.items():
            self._everyone.on_notice(f"some lines of {name} could not be written: {error.strerror}")
        seconds = {**session.seconds, "total": time.perf_counter() - self._started}
        seconds = {name: round(value, 3) for name, value in seconds.items()}
        folder.update_run(
            status=status, step=session.step, metrics=keeper.metrics, seconds=seconds,
            weights_sha256=digest_of(folder.path / "model.safetensors") if is_first else None,
            notices=keeper.notices, reason=None, **_taken_up(session, folder),
        )  # fmt: skip
        self._everyone.on_end(status)
        return Run(
            path=folder.path, status=status, model=model.eval(), plan=session.plan,
            metrics=keeper.metrics, seconds=seconds, notices=tuple(keeper.notices),
        )  # fmt: skip


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


def _start_info(session: Session, folder: RunFolder) -> StartInfo:
    return StartInfo(
        name=session.task.name, folder=str(folder.path), first_step=session.step,
        num_steps=session.task.num_steps, steps_per_epoch=session.order.steps_per_epoch,
        batch_size=session.task.batch_size, device=session.device.name,
        num_parameters=sum(parameter.numel() for parameter in session.model.parameters()),
    )  # fmt: skip
