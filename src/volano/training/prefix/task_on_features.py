"""A task on what its frozen modules compute: these are replaced by modules that give what was
computed of each example before, which any program can train, traced ones too.

It is for data that lies in tensors, whose examples are the same each time by nature.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from volano.task import Batch, Task
from volano.training.prefix.frozen_value import FrozenValue, Source, stand_in
from volano.training.prefix.kept_pass import AllKnownError
from volano.training.prefix.observe_pass import Boundary
from volano.training.prefix.row_digests import Digest, RowDigests
from volano.training.prefix.units import CallInputs, PrefixMismatchError, UnitPass

# A result is written as plain values, which code that compares tasks can look into: ("kept", place
# of the feature), ("missing", shape of a row, type), ("value", itself), or ("tuple", "list" or
# "dict", its parts).
_Result = tuple[Any, ...]


@dataclass(frozen=True)
class GivenCall:
    """A call of a replaced module: its name, whether its input comes from outside of the frozen
    part, and its result."""

    name: str
    is_first: bool
    result: _Result


@dataclass(frozen=True)
class FeaturePlan:
    """The plan of what replaced modules give.

    Attributes:
        names: names of the modules.
        calls: their calls in a pass, in order.
    """

    names: tuple[str, ...]
    calls: tuple[GivenCall, ...]


class FeaturePass(UnitPass):
    """A pass that computes the frozen part and ends there.

    Args:
        boundary: the frozen part.
        count: the examples of the batch.
        digests: what digests inputs; None: they are not asked for.

    Attributes:
        features: what something else uses, a tensor of rows each.
        inputs: digests of the examples, of each call whose input comes from outside.
    """

    def __init__(self, boundary: Boundary, count: int, digests: RowDigests | None = None) -> None:
        super().__init__(boundary.kept_units, (), count)
        named = enumerate(boundary.calls)
        self._calls = [(n, *call) for n, call in named if call[0] in boundary.kept_units]
        if any(region is None for _, _, region in self._calls):
            raise PrefixMismatchError("a frozen module is computed again in one of its calls")
        self._used = {source for used in boundary.used for source in used}
        self._made: list[GivenCall] = []
        self._digests = digests
        self.features: list[Tensor] = []
        self.inputs: list[list[Digest]] = []

    @property
    def plan(self) -> FeaturePlan:
        """The calls that were made."""
        return FeaturePlan(tuple(self._units), tuple(self._made))

    def passed(self, objective: Callable[[], Any]) -> None:
        """Runs the pass up to the end of the frozen part.

        Raises:
            PrefixMismatchError: it is not like the one that was observed.
        """
        with contextlib.suppress(AllKnownError):
            self.run(objective)
        if len(self._made) != len(self._calls):
            raise PrefixMismatchError("fewer of its modules are called than before")

    def note_use(self, values: list[FrozenValue], name: str) -> None:
        """Implements :class:`Watcher`; no value is watched."""

    def call(self, name: str, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        place = len(self._made)
        if place >= len(self._calls) or self._calls[place][1] != name:
            raise PrefixMismatchError(f"{name} is called at another place than before")
        number, _, region = self._calls[place]
        is_first = all(other != region for _, _, other in self._calls[:place])
        if is_first and self._digests is not None:
            self.inputs.append(digests_of_inputs(self._digests, args, kwargs, self._count))
        result = forward(*args, **kwargs)
        # Leaves are counted as the observed pass counts them.
        self._made.append(GivenCall(name, is_first, self._written(result, number, [0])))
        if len(self._made) == len(self._calls):
            raise AllKnownError
        return result

    def _written(self, value: Any, number: int, place: list[int]) -> _Result:
        if isinstance(value, Tensor):
            source: Source = (number, place[0])
            place[0] += 1
            if source in self._used:
                self.features.append(value.detach())
                return ("kept", len(self.features) - 1)
            return ("missing", tuple(value.shape[1:]), value.dtype)
        if type(value) in (tuple, list):
            parts = tuple(self._written(part, number, place) for part in value)
            return (type(value).__name__, parts)
        if type(value) is dict:
            parts = tuple((k, self._written(part, number, place)) for k, part in value.items())
            return ("dict", parts)
        if not isinstance(value, bool | int | str | type(None)):
            raise PrefixMismatchError(f"{type(value).__name__} in its result cannot be kept")
        place[0] += 1 if value is not None else 0
        return ("value", value)


def digests_of_inputs(digests: RowDigests, args: Any, kwargs: Any, count: int) -> list[Digest]:
    """Returns digests of the examples in the inputs of a call, and of what else is in them.

    Raises:
        PrefixMismatchError: there are no examples, or what cannot be compared.
    """
    inputs = CallInputs(args, kwargs)
    rows, others = inputs.rows_and_others(count)
    shapes = tuple((tuple(t.shape[1:]), str(t.dtype)) for t in (*rows, *others))
    more = [digests([tensor.reshape(1, -1)])[0] for tensor in others]
    return [*digests(rows), (inputs.settings, shapes), *more]


class GivenOutputs(nn.Module):
    """A module in the place of a frozen one: it computes nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.giving: Any = None  # during a pass alone

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what was computed before."""
        if self.giving is None:
            raise PrefixMismatchError(f"{self.name} is called outside of the objective")
        return self.giving.result_of(self.name, args, kwargs)


class GivenFeatures:
    """A pass in which replaced modules give features.

    Args:
        plan: the calls.
        features: of the batch.
        digests: what digests inputs; None: they are not asked for.

    Attributes:
        inputs: see :class:`FeaturePass`.
    """

    def __init__(
        self, plan: FeaturePlan, features: Sequence[Tensor], digests: RowDigests | None = None
    ) -> None:
        self._plan, self._features, self._digests = plan, features, digests
        self._next = 0
        self.inputs: list[list[Digest]] = []

    @contextlib.contextmanager
    def to(self, model: nn.Module) -> Iterator[None]:
        """A context in which the replaced modules of a model give them.

        Raises:
            PrefixMismatchError: not all of them were asked for.
        """
        modules: list[Any] = [model.get_submodule(name) for name in self._plan.names]
        for module in modules:
            module.giving = self
        try:
            yield
        finally:
            for module in modules:
                module.giving = None
        if self._next != len(self._plan.calls):
            raise PrefixMismatchError("fewer of its modules are called than before")

    def result_of(self, name: str, args: Any, kwargs: Any) -> Any:
        """Returns the result of the next call.

        Raises:
            PrefixMismatchError: another call was next.
        """
        place, calls = self._next, self._plan.calls
        self._next += 1
        if place >= len(calls) or calls[place].name != name:
            raise PrefixMismatchError(f"{name} is called at another place than before")
        if calls[place].is_first and self._digests is not None:
            count = len(self._features[0])
            self.inputs.append(digests_of_inputs(self._digests, args, kwargs, count))
        return self._read(calls[place].result)

    def _read(self, result: _Result) -> Any:
        kind, value = result[0], result[1]
        if kind == "kept":
            return self._features[value]
        if kind == "missing":
            like = self._features[0]
            return stand_in(like.shape[0], value, result[2], like.device)
        if kind == "dict":
            return {name: self._read(part) for name, part in value}
        if kind in ("tuple", "list"):
            parts = [self._read(part) for part in value]
            return parts if kind == "list" else tuple(parts)
        return value


class OnFeatures:
    """An objective of batches ``(batch, features)``: the task's own, whose replaced modules give
    the features."""

    def __init__(self, objective: Callable[..., Any], plan: FeaturePlan) -> None:
        self.objective, self.plan = objective, plan

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """Returns the task's own result."""
        given, features = batch
        with GivenFeatures(self.plan, features).to(model):
            return self.objective(model, given)


class CopiedModel:
    """A factory that gives copies of one model, whose weights were drawn with the task's seed."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self._model)


def without_units(model: nn.Module, plan: FeaturePlan) -> nn.Module:
    """Returns the model with its frozen modules replaced; it is changed."""
    for name in plan.names:
        model.set_submodule(name, GivenOutputs(name))
    return model


def on_features(task: Task, model: nn.Module, plan: FeaturePlan, data: Any, valid: Any) -> Task:
    """Returns a task on features; ``model`` is one without its frozen modules, which ``task`` has
    made, ``data`` and ``valid`` hold examples with their features."""
    return dataclasses.replace(
        task, model=CopiedModel(model), objective=OnFeatures(task.objective, plan),
        data=data, valid=valid,
    )  # fmt: skip
