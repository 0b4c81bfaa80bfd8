"""Assembles a study: its folder, Optuna's study, its rungs and its driver; closes it whatever
happens."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage

from volano.device import versions
from volano.errors import CheckpointError, RunError, UsageError, in_words
from volano.record.study import read_trials
from volano.record.study_folder import JOURNAL, STUDY, StudyFolder
from volano.report.study.rank_noise import rank_notices
from volano.study.ask_trials import TrialSource, check_space
from volano.study.observe import StudyInfo, StudyObserver
from volano.study.optuna_storage import StudyStorage, storage_errors
from volano.study.sampler import name_of_sampler
from volano.study.settings import StudySettings
from volano.study.study import Study
from volano.study.study_loop import StudyLoop
from volano.study.successive_halving import SuccessiveHalving
from volano.study.trial_ledger import TrialLedger
from volano.study.workers.executor import Executor
from volano.study.workers.trial_tasks import Build

# Trials of before whose tasks are built again to see whether the space is the same.
_NUM_CHECKED = 3
Storage = str | Path | BaseStorage | optuna.Study | None
MakeExecutor = Callable[[], AbstractContextManager[Executor]]


def run_study(
    build: Build, settings: StudySettings, folder: StudyFolder, make_executor: MakeExecutor, *,
    storage: Storage = None, sampler: BaseSampler | None = None,
    observer: StudyObserver | None = None, facts: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Study:  # fmt: skip
    """Runs a study to its end, or on to it, and leaves a complete folder.

    Args:
        build: the function that makes a trial's task; called once for each trial in this process.
        settings: the settings of the study.
        folder: reserved, or with ``resume`` that of the study.
        make_executor: starts the workers, as a context that ends them.
        storage: see :class:`StudyStorage`.
        sampler: an Optuna sampler; None is that of an Optuna study in ``storage``, or else TPE.
        observer: the observer that hears of it.
        facts: the facts to be kept in ``study.json``: ``source``, and ``settings`` beyond those.
        resume: whether to resume the study in the folder.

    Raises:
        VolanoError: as its subclasses say. ``study.json`` then holds the reason, and what was
            learned is kept.
    """
    observer = observer or StudyObserver()
    if resume:
        with folder.as_written():
            settings, storage = _before(folder, settings, storage)
    else:
        folder.make()
    with folder.held(observer.on_notice):
        # A refused resume has not changed the study.
        with contextlib.nullcontext() if resume else _failures_noted(folder):
            opened = _OpenStudy(
                build, settings, folder, storage, sampler, facts=facts, resume=resume
            )
        try:
            with _failures_noted(folder), make_executor() as executor:
                return opened.run(executor, observer)
        finally:
            opened.study.sampler = opened.own_sampler


class _OpenStudy:
    """A study whose folder is held and whose storage is open.

    Attributes:
        study: Optuna's.
        own_sampler: the sampler that Optuna's study has by itself.
    """

    def __init__(
        self, build: Build, settings: StudySettings, folder: StudyFolder, storage: Storage,
        sampler: BaseSampler | None, *, facts: Mapping[str, Any] | None, resume: bool,
    ) -> None:  # fmt: skip
        self._build, self._settings, self._folder = build, settings, folder
        with folder.as_written() if resume else contextlib.nullcontext():
            self._place = place = StudyStorage(storage, folder.path)
            name = folder.read_json(STUDY)["name"] if resume else folder.path.resolve().name
            self.study = place.study(name, settings.direction, is_new=not resume)
        self.own_sampler = self.study.sampler
        if sampler is None and isinstance(storage, optuna.Study):
            sampler = self.own_sampler
        self._sampler = sampler
        if not resume:
            folder.update(**_facts(settings, place, self.study, sampler, facts))
        self._rungs = SuccessiveHalving(settings.shares, settings.eta, settings.direction)
        self._ledger = TrialLedger(
            folder, place, self.study, self._rungs, metric=settings.metric,
            direction=settings.direction,
        )  # fmt: skip
        self._orphans: list[int] = []
        if resume:
            _check_space(build, folder, self.study)
            _note_settings(folder, settings, place, sampler)
            with folder.as_written():
                self._orphans = self._ledger.take_up(adopt=not place.is_shared)

    def run(self, executor: Executor, observer: StudyObserver) -> Study:
        """Runs the study to its end, or until it is stopped."""
        trial_source = TrialSource(self._build, self.study, self._sampler, self._settings.seed)
        loop = StudyLoop(
            self._settings, self._folder, ledger=self._ledger, trial_source=trial_source,
            rungs=self._rungs, executor=executor, observer=observer,
        )  # fmt: skip
        observer.on_start(self._info(executor.num_workers))
        for text in (*self._place.notices, *getattr(executor, "notices", ())):
            loop.notice(text)
        loop.take_up(self._orphans)
        self._close(loop, observer, loop.run())
        ended = Study(self._folder, optuna_study=self.study, build=self._build)
        observer.on_end(ended)
        return ended

    def _close(self, loop: StudyLoop, observer: StudyObserver, status: str) -> None:
        if status == "stopped":
            loop.notice(
                f"stopped, as {loop.end_reason}; continue with resume=True and "
                f"out={self._folder.path}"
            )
        elif loop.end_reason is not None:
            loop.notice(f"it ended before all trials were asked for: {loop.end_reason}")
        valid = (self._folder.read_json(STUDY).get("data") or {}).get("valid") or {}
        for text in rank_notices(
            self._ledger.trials.values(),
            metric=self._settings.metric,
            direction=self._settings.direction,
            num_valid=valid.get("num_examples"),
        ):
            loop.notice(text)
        self._ledger.save(status=status, reason=loop.end_reason)
        for name, error in self._folder.lost.items():
            observer.on_notice(f"some lines of {name} could not be written: {error.strerror}")

    def _info(self, num_workers: int) -> StudyInfo:
        settings = self._settings
        return StudyInfo(
            name=self.study.study_name,
            folder=str(self._folder.path),
            num_trials=settings.trials,
            num_before=len(self._ledger.trials),
            minutes=settings.minutes,
            metric=settings.metric,
            direction=settings.direction,
            shares=settings.shares,
            num_workers=num_workers,
            sampler=name_of_sampler(self._sampler),
        )


def _note_settings(
    folder: StudyFolder, settings: StudySettings, place: StudyStorage, sampler: BaseSampler | None
) -> None:
    """Writes down the settings with which a study is resumed."""
    before, name = folder.read_json(STUDY)["settings"], name_of_sampler(sampler)
    if before.get("sampler") != name:
        place.notices.append(
            f"it continues with {name}; `sampler` was {before.get('sampler')} when it was started"
        )
    folder.update(settings={**before, **settings.to_json(), "sampler": name})


def _check_space(build: Build, folder: StudyFolder, study: optuna.Study) -> None:
    with storage_errors():
        steps = {t.number: {rung.share: rung.step for rung in t.rungs} for t in read_trials(folder)}
        some = [trial for trial in study.get_trials(deepcopy=False) if trial.number in steps]
    some.sort(key=lambda trial: len(steps[trial.number]))  # those that came furthest tell most
    check_space(build, some[-_NUM_CHECKED:], steps)


def _before(
    folder: StudyFolder, settings: StudySettings, storage: Storage
) -> tuple[StudySettings, Storage]:
    """Returns the settings and the storage of a study that is resumed."""
    facts = folder.read_json(STUDY)
    if facts.get("status") == "starting" or "settings" not in facts:
        raise UsageError(
            "A study to resume must have begun",
            got=f"{folder.path}, which was killed while it was being prepared",
            remedy="Start it again, without `resume`",
        )
    settings = settings.going_on(facts["settings"])
    if facts.get("status") == "finished" and settings.trials <= facts["counts"]["asked"]:
        raise UsageError(
            "A study to resume must have trials left",
            got=f"{folder.path}, which is finished after {facts['counts']['asked']} trials",
            remedy="Ask for more `trials`, or start another study with another `out`",
        )
    url = facts.get("storage")
    if url is None and not (folder.path / JOURNAL).is_file():
        raise CheckpointError(
            "A study to resume must have its journal in its folder",
            got=f"no {JOURNAL} in {folder.path}",
            remedy="Put it back, or start another study with another `out`",
        )
    if storage is None and url is not None:
        if url == "object" or ":@" in url or "@" in url:
            raise UsageError(
                "A resumed study must keep its storage",
                got=f"none, and it was {url}",
                remedy="Give `storage` again",
            )
        storage = url
    elif storage is not None and url is None:
        raise UsageError(
            "A resumed study must keep its storage",
            got=f"{storage}, and it has a journal in its folder",
            remedy="Leave `storage` out",
        )
    return settings, storage


def _facts(
    settings: StudySettings, place: StudyStorage, study: optuna.Study, sampler: BaseSampler | None,
    facts: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    facts = dict(facts or {})
    return {
        "status": "running",
        "reason": None,
        "name": study.study_name,
        "storage": place.url,
        "source": facts.get("source", {"kind": "python"}),
        "settings": {
            **settings.to_json(),
            "sampler": name_of_sampler(sampler),
            **facts.get("settings", {}),
        },
        "versions": {**versions(), "optuna": optuna.__version__},
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "notices": [],
    }


@contextlib.contextmanager
def _failures_noted(folder: StudyFolder) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(RunError):
            folder.check_held()
            folder.update(status="failed", reason=in_words(error))
        raise
