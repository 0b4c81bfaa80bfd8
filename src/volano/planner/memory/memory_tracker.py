"""Tracks which storages live while a step runs: bytes by category, the peak, and the operations
that are executed.

It sees real tensors and fake ones alike, so the same code measures and predicts a step. A dispatch
mode does not see what a kernel allocates for itself and frees before it returns; for the CPU
``workspace`` adds that.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from volano.device.torch_private import (
    TorchDispatchMode,
    current_autograd_node,
    current_graph_task_id,
    next_sequence_number,
    sequence_number,
    sparse_indices_of,
    sparse_values_of,
    storage_key,
    tree_iter,
)
from volano.errors import ObjectiveError
from volano.plan.prediction import CATEGORIES, Operation, PhaseName
from volano.planner.time.operations import describe_operation, is_computation

READS_A_VALUE = (
    "The objective's shapes and its course follow from shapes alone",
    "it reads a value from the device (.item(), float() or bool() of a tensor)",
)


@dataclass(eq=False, slots=True)
class _Storage:
    """A storage, from its first sight to its end. ``category`` is None until it is declared."""

    num_bytes: int
    born: PhaseName
    category: str | None = None
    outlives_forward: bool = False
    is_on_host: bool = False


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The bytes that live at the peak, by category, and the operation at which it stands."""

    num_bytes: int
    categories: dict[str, int]
    operator: str


class MemoryTracker(TorchDispatchMode):
    """A dispatch mode that follows storages while it is entered; enter it inside a FakeTensorMode,
    if there is one.

    Args:
        granularity: bytes to which an allocation is rounded up; 1 for the CPU, whose allocations
            are counted as requested.
        workspace: ``(operation, arguments, result) -> bytes`` that a kernel holds while it runs, in
            addition to its result.
        completed: ``(operation, arguments, result) -> result``; adds what fake tensors leave out.
        has_values: whether tensors are real. Fake ones cannot be read: within the objective a read
            is an error, and an optimizer's reads are answered with 1.
        follows_modules: whether operations are named with their modules; hooks of modules break
            compiled graphs.

    Attributes:
        host: the most bytes that were sent to the host and lived there.
        kept: the most bytes that lived when a forward pass had ended: all that a step keeps, and no
            temporaries.
        passes: how many forward passes have begun since :meth:`restart`.
        has_randomness: whether an operation of a forward pass has drawn random numbers.
    """

    def __init__(
        self,
        *,
        granularity: int = 1,
        workspace: Callable[[Any, tuple[Any, ...], Any], int] | None = None,
        completed: Callable[[Any, tuple[Any, ...], Any], Any] | None = None,
        has_values: bool = True,
        follows_modules: bool = True,
    ) -> None:
        super().__init__()
        self._granularity, self._has_values = granularity, has_values
        self._workspace, self._completed = workspace, completed
        self._live: dict[int, tuple[_Storage, Any]] = {}
        # Live storages at the restart; then the events in order: (storage, bytes added or freed,
        # operation's number).
        self._initial: list[tuple[_Storage, int]] = []
        self._events: list[tuple[_Storage, int, int]] = []
        self._names: list[tuple[str, str, PhaseName]] = []
        self._counts: list[Counter[Operation]] = [Counter()]
        self._in_objective = False
        self._seen_backward = False
        self._num_live = self._on_host = self.host = 0
        self.kept = 0
        self.passes = 0
        self.has_randomness = False
        self._modules = _ModuleNames()
        self._follows_modules = follows_modules

    # ---- the session declares what is computed

    def objective(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps ``function`` as the forward pass: what it computes counts for that phase, under the
        names of its model's modules."""

        def tracked(model: nn.Module, batch: Any) -> Any:
            self.passes += 1
            self._counts.append(Counter())
            self._in_objective, self._seen_backward = True, False
            try:
                with self._modules.of(model) if self._follows_modules else contextlib.nullcontext():
                    return function(model, batch)
            finally:
                self._in_objective = False
                self.kept = max(self.kept, self._num_live)
                for storage, _ in self._live.values():
                    storage.outlives_forward = True

        return tracked

    def adopt(self, tensors: Iterable[Any], category: str) -> None:
        """Says what storages are, whether they are new here or known already."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                for part in _parts(tensor):
                    self._see(part).category = category

    def adopt_results(self, optimizer: torch.optim.Optimizer) -> None:
        """Declares a step's gradients and the optimizer's state after it."""
        self.adopt(
            (p.grad for group in optimizer.param_groups for p in group["params"]), "gradients"
        )
        self.adopt(
            tree_iter([dict(values) for values in optimizer.state.values()]), "optimizer_state"
        )

    def send_to_host(self, tensor: Tensor) -> None:
        """Counts the tensor's storage as host memory from now on: its bytes are no longer the
        device's."""
        storage = self._see(tensor)
        if not storage.is_on_host:
            storage.is_on_host = True
            self._note(storage, -storage.num_bytes)
            self._on_host += storage.num_bytes
            self.host = max(self.host, self._on_host)

    def restart(self) -> None:
        """Begins a new peak and new counts with the storages that live now."""
        self._events.clear()
        self._names.clear()
        self._initial = [
            (storage, storage.num_bytes)
            for storage, _ in self._live.values()
            if not storage.is_on_host
        ]
        self.host = self._on_host
        self._counts = [Counter()]
        self.passes = self.kept = 0

    @property
    def phase(self) -> PhaseName:
        """The phase of what is computed now."""
        if current_graph_task_id() != -1:
            return "backward"
        return (
            "forward"
            if self._in_objective or not self.passes or not self._seen_backward
            else "optimizer"
        )

    # ---- what has been seen

    def peak(self) -> Peak:
        """Returns the most bytes since :meth:`restart`, with the categories of the storages that
        lived then.

        An undeclared storage is an activation if a forward pass made it and it outlived that pass,
        and a temporary otherwise.
        """
        live = highest = sum(size for _, size in self._initial)
        place, operator = 0, ("", "")
        for index, (_, change, number) in enumerate(self._events, start=1):
            live += change
            if live > highest:
                highest, place = live, index
                operator = self._names[number][:2] if number >= 0 else ("", "")
        sizes: Counter[_Storage] = Counter()
        for storage, size in itertools.chain(
            self._initial, ((s, c) for s, c, _ in self._events[:place])
        ):
            sizes[storage] += size
        categories: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
        for storage, size in sizes.items():
            categories[_category(storage)] += size
        name = " in ".join(part for part in operator if part)
        return Peak(num_bytes=highest, categories=categories, operator=name)

    def peak_outside_passes(self) -> int:
        """Returns the most bytes while neither a forward nor a backward pass was computed: in the
        update, mostly."""
        live = highest = sum(size for _, size in self._initial)
        for _, change, number in self._events:
            live += change
            if number < 0 or self._names[number][2] == "optimizer":
                highest = max(highest, live)
        return highest

    def operations(self, passes: Iterable[int] | None = None) -> Counter[Operation]:
        """Returns each executed operation (``count`` is 1) with its number of executions, in all
        passes or in some.

        Pass 0 is everything before the first forward pass; what follows a pass until the next one
        belongs to it.
        """
        numbers = range(len(self._counts)) if passes is None else passes
        return sum((self._counts[number] for number in numbers), Counter())

    # ---- what happens

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Tells torch that compiled functions stay compiled while this mode watches."""
        return True

    def __enter__(self) -> MemoryTracker:
        super().__enter__()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Watches an operation; see ``TorchDispatchMode``."""
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and not self._has_values:
            return self._read_blindly(args[0])
        result = func(*args, **kwargs)
        if self._completed is not None:
            result = self._completed(func, args, result)
        if not is_computation(func):
            self._note_results(result)
            return result
        phase = self.phase
        self._seen_backward |= phase == "backward"
        self._names.append((str(func), self._modules.current(phase), phase))
        self._note_results(result)
        if self._workspace is not None and (held := self._workspace(func, args, result)):
            self._note_workspace(held, phase)
        operation = describe_operation(func, args, kwargs, result, phase)
        if operation is not None:
            self._counts[-1][operation] += 1
        if (
            phase == "forward"
            and self._in_objective
            and torch.Tag.nondeterministic_seeded in func.tags
        ):
            self.has_randomness = True
        return result

    def _read_blindly(self, tensor: Tensor) -> Any:
        if self.phase != "optimizer":
            raise ObjectiveError(READS_A_VALUE[0], got=READS_A_VALUE[1])
        # A number of steps or a norm: no shape follows from it.
        return 1.0 if tensor.is_floating_point() else 1

    def _note_results(self, result: Any) -> None:
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                for part in _parts(value):
                    self._see(part)

    def _note_workspace(self, held: int, phase: PhaseName) -> None:
        storage = _Storage(self._rounded(held), phase, "temporaries")
        self._note(storage, storage.num_bytes)
        self._note(storage, -storage.num_bytes)

    def _see(self, tensor: Tensor) -> _Storage:
        held, key = tensor.untyped_storage(), storage_key(tensor)
        known = self._live.get(key)
        size = self._rounded(held.nbytes())
        if known is not None:
            storage = known[0]
            if storage.num_bytes != size and not storage.is_on_host:  # resized in place
                self._note(storage, size - storage.num_bytes)
                storage.num_bytes = size
            return storage
        storage = _Storage(size, self.phase)
        self._live[key] = storage, weakref.ref(held, lambda _: self._forget(key))
        self._note(storage, size)
        return storage

    def _forget(self, key: int) -> None:
        storage, _ = self._live.pop(key)
        if storage.is_on_host:
            self._on_host -= storage.num_bytes
        else:
            self._note(storage, -storage.num_bytes)

    def _note(self, storage: _Storage, change: int) -> None:
        self._num_live += change
        self._events.append((storage, change, len(self._names) - 1))

    def _rounded(self, num_bytes: int) -> int:
        return -(-num_bytes // self._granularity) * self._granularity


def _category(storage: _Storage) -> str:
    if storage.category is not None:
        return storage.category
    return (
        "activations" if storage.born == "forward" and storage.outlives_forward else "temporaries"
    )


def _parts(tensor: Tensor) -> Iterable[Tensor]:
    """Returns the strided tensors that make up a tensor; empty for one without a storage of its
    own."""
    if tensor.layout is torch.strided:
        return (tensor,)
    if tensor.layout is torch.sparse_coo:
        return (sparse_indices_of(tensor), sparse_values_of(tensor))
    return ()


class _ModuleNames:
    """The names of the modules within which operations are executed. In a backward pass it is the
    module whose forward pass made the node."""

    def __init__(self) -> None:
        self._stack = [""]
        # Autograd numbers its nodes in the order in which they are made.
        self._numbers: list[int] = []
        self._owners: list[str] = []

    def of(self, model: nn.Module) -> _Hooks:
        """Returns a context in which the modules of a model are followed."""
        return _Hooks(self, {id(module): name for name, module in model.named_modules()})

    def enter(self, name: str) -> None:
        self._stack.append(name)
        self._mark()

    def leave(self) -> None:
        if len(self._stack) > 1:
            self._stack.pop()
        self._mark()

    def reset(self) -> None:
        self._stack = [""]
        self._mark()

    def current(self, phase: PhaseName) -> str:
        if phase == "forward":
            return self._stack[-1]
        node = current_autograd_node() if phase == "backward" else None
        if node is None or not self._numbers:
            return ""
        place = bisect.bisect_right(self._numbers, sequence_number(node)) - 1
        return self._owners[place] if place >= 0 else ""

    def _mark(self) -> None:
        self._numbers.append(next_sequence_number())
        self._owners.append(self._stack[-1])


class _Hooks:
    """The global hooks of torch's modules: the model's own hooks are not touched."""

    def __init__(self, names: _ModuleNames, known: dict[int, str]) -> None:
        self._names, self._known = names, known
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._names.reset()
        self._handles = [
            register_module_forward_pre_hook(self._before),
            register_module_forward_hook(self._after, always_call=True),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._names.reset()

    def _before(self, module: nn.Module, _: Any) -> None:
        self._names.enter(self._known.get(id(module), ""))

    def _after(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        self._names.leave()
