"""A graph of the CPU that keeps the contract of a device's: recording runs nothing, a replay works
on the memory that was recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from volano.device import Device


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}
        self.own: set[int] = set()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        before = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # BatchNorm's schema does not say that it moves the statistics.
        if func._schema.is_mutable or "batch_norm" in func.__name__:
            for tensor in before:
                storage = tensor.untyped_storage().data_ptr()
                if storage not in self.own and storage not in self.saved:
                    self.saved[storage] = (tensor, tensor.clone())
        out = func(*args, **kwargs)
        storages = {tensor.untyped_storage().data_ptr() for tensor in before}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in storages:
                self.own.add(leaf.untyped_storage().data_ptr())
        self.calls.append((func, args, kwargs, out))
        return out


class RecordingGraph:
    """Replays operations one by one, as one launch."""

    num_recorded = num_replays = 0

    def __init__(self) -> None:
        self._recorder = _Recorder()

    @contextlib.contextmanager
    def recording(self, generators: Any = ()) -> Iterator[None]:
        """Records, and puts back what recording has changed."""
        states = [(generator, generator.get_state()) for generator in generators]
        state = torch.get_rng_state()
        try:
            with self._recorder:
                yield
        finally:
            with torch.no_grad():
                for tensor, copy in self._recorder.saved.values():
                    tensor.copy_(copy)
            torch.set_rng_state(state)
            for generator, earlier in states:
                generator.set_state(earlier)
        type(self).num_recorded += 1

    @torch.no_grad()
    def replay(self) -> None:
        """Runs all that was recorded on the same memory."""
        type(self).num_replays += 1
        for func, args, kwargs, out in self._recorder.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[RecordingGraph]:
    """The CPU as a device that records graphs."""
    RecordingGraph.num_recorded = RecordingGraph.num_replays = 0
    monkeypatch.setattr(Device, "has_graphs", True)
    monkeypatch.setattr(Device, "graph", lambda _: RecordingGraph())
    return RecordingGraph
