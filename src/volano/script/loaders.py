"""Loaders of a script: workers, pinning, prefetch and persistence, set when a loader is first
iterated over.

By then Lightning and Accelerate have made their own loader of the script's. The numbers stay those
of the script: batches in the same order, and the same draws from the generators of this process.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from volano.device import Device
from volano.device.torch_private import forget_workers, has_workers, is_half_read
from volano.script.hosts import OF_LOADERS
from volano.script.notes import Notes
from volano.script.plan import ScriptPlan

# A worker is forked in a tenth of a second at most, and as many batches as workers are in flight
# before the first arrives: shorter passes gain nothing.
_LEAST_BATCHES = 8
_DEFAULT_PREFETCH = 2  # torch's, per worker
# How deep a dataset is looked into: Subset -> ImageFolder -> Compose -> the list of transforms.
_DEPTH = 4
# Whose objects stand for one place in one file, which forked workers would share.
_HANDLES = ("h5py", "zipfile", "tarfile", "sqlite3", "lmdb", "netCDF4", "tables")


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """The settings of a plan that concern loaders; None is as the script has it."""

    num_workers: int | None
    pin_memory: bool | None
    prefetch_factor: int | None
    persistent_workers: bool | None

    @classmethod
    def of(cls, plan: ScriptPlan) -> LoaderSettings | None:
        """Returns a plan's settings; None if it has none of them."""
        found = {name: getattr(plan, name) for name in OF_LOADERS}
        return cls(**found) if any(found.values()) else None


@dataclass
class _Treated:
    """A note of what was done to a loader: the attributes that it had before, and its dataset as it
    was when its workers were started."""

    before: dict[str, Any] = field(default_factory=dict)
    dataset: list[Any] | None = None


class TreatedLoaders:
    """Loaders that have a plan's settings from their first pass on.

    Args:
        notes: the hearer of what is done and left.
    """

    def __init__(self, settings: LoaderSettings, notes: Notes) -> None:
        self._settings, self._notes = settings, notes
        self._known: weakref.WeakKeyDictionary[Any, _Treated] = weakref.WeakKeyDictionary()

    def iterate(self, loader: Any, original: Callable[[Any], Any] = DataLoader.__iter__) -> Any:
        """Begins a pass over a loader, by ``original``."""
        treated = self._known.get(loader)
        if treated is None:
            treated = self._known[loader] = _treat(loader, self._settings, self._notes)
        if treated.dataset is None or not has_workers(loader):
            return original(loader)
        if is_half_read(loader):
            # Two passes at a time, zip(loader, loader): persistent workers make one.
            vars(loader)["persistent_workers"] = False
            try:
                return original(loader)
            finally:
                vars(loader)["persistent_workers"] = True
        outline = outline_of(loader.dataset)
        if outline != treated.dataset:
            # The script has changed it between two epochs, which living workers would not see.
            treated.dataset = outline
            forget_workers(loader)
        else:
            # What a pass without persistent workers draws for the seeds of its workers. The order
            # of the next epoch is drawn from the same generator.
            torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        return original(loader)

    def undo(self) -> None:
        """Gives the loaders their own settings back, and ends the workers."""
        for loader, treated in self._known.items():
            if treated.before:
                forget_workers(loader)
                vars(loader).update(treated.before)
        self._known.clear()


@contextlib.contextmanager
def loaders_treated(settings: LoaderSettings, notes: Notes) -> Iterator[None]:
    """Returns a context in which loaders have a plan's settings; afterwards their own, and the
    workers are gone."""
    original: Any = DataLoader.__iter__
    loaders = TreatedLoaders(settings, notes)

    def iterate(self: Any) -> Any:
        return loaders.iterate(self, original)

    DataLoader.__iter__ = iterate
    try:
        yield
    finally:
        DataLoader.__iter__ = original
        loaders.undo()


def _treat(loader: Any, settings: LoaderSettings, notes: Notes) -> _Treated:
    """Gives a loader the settings; those that are the script's own stay."""
    treated, wanted = _Treated(), {}
    if settings.pin_memory and not loader.pin_memory:
        if Device().can_pin:
            wanted["pin_memory"] = True
        else:
            notes.left("pin_memory: there is no device that copies from page-locked memory")
    if settings.num_workers:
        reason = _why_no_workers(loader)
        if reason is None:
            wanted["num_workers"] = settings.num_workers
            wanted["prefetch_factor"] = settings.prefetch_factor or _DEFAULT_PREFETCH
            if settings.persistent_workers:
                wanted["persistent_workers"] = True
                treated.dataset = outline_of(loader.dataset)
        else:
            notes.left(f"the loader of {type(loader.dataset).__name__}: {reason}")
    elif settings.prefetch_factor and loader.num_workers:
        wanted["prefetch_factor"] = settings.prefetch_factor
    if wanted:
        treated.before = {name: vars(loader)[name] for name in wanted}
        # DataLoader refuses to have persistence set after it was made.
        vars(loader).update(wanted)
        said = ", ".join(f"{name}={value}" for name, value in wanted.items())
        notes.did(f"the loader of {type(loader.dataset).__name__} with {said}")
    return treated


def _why_no_workers(loader: Any) -> str | None:
    """Returns why a loader has to stay as the script made it; None if it may have workers."""
    if loader.num_workers:
        return f"the script gives it {loader.num_workers} workers"
    if multiprocessing.current_process().daemon:
        return "it is read in a worker, which may have none itself"
    if isinstance(loader.dataset, IterableDataset):
        return "it can only be iterated over, and several workers would each give all of it"
    # Of unknown length: a sampler of the script's has none, or raises what it likes.
    with contextlib.suppress(Exception):
        if (num_batches := len(loader)) < _LEAST_BATCHES:
            return f"{num_batches} batches are over before workers have begun"
    if any(_is_handle(value) for value in outline_of(loader.dataset, hold=True)):
        return "its dataset holds an open file, whose place workers would share"
    return None


def _is_handle(value: Any) -> bool:
    return isinstance(value, io.IOBase) or type(value).__module__.split(".")[0] in _HANDLES


def outline_of(dataset: Any, *, hold: bool = False) -> list[Any]:
    """Returns what a dataset is made of, a few levels deep, so that it can be seen whether the
    script has changed it: plain values, and other objects by their identity (``hold``: the
    objects)."""
    found: list[Any] = []
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        if isinstance(value, int | float | str | bytes | None):
            found.append(value)
            return
        found.append(value if hold else id(value))
        if depth == 0 or id(value) in seen or isinstance(value, type | ModuleType):
            return
        seen.add(id(value))
        if isinstance(value, list | tuple):
            for item in value[:64] if len(value) <= 64 else ():
                look(item, depth - 1)
        elif not isinstance(value, torch.Tensor):
            for name, item in sorted(getattr(value, "__dict__", {}).items()):
                found.append(name)
                look(item, depth - 1)

    look(dataset, _DEPTH)
    return found
