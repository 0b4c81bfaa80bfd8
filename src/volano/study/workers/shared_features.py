"""The frozen layers that the trials of a study have in common: what they compute of the data is
computed once, and every trial is trained on it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.data import Arrays, rows_of, take, why_streamed
from volano.device import Device
from volano.device.random_state import random_state_kept
from volano.errors import reason_of
from volano.packing.structure.callable_tree import Comparison
from volano.task import Batch, Task, as_loss, map_tensors, num_bytes, num_examples, tensors_of
from volano.training import Session, StepTimer
from volano.training.evaluate import modes_kept
from volano.training.prefix.feature_room import FEATURES_SHARE
from volano.training.prefix.find_prefix import (
    FrozenPrefixFacts,
    allowed_difference,
    find_prefix,
    has_frozen_layers,
    off,
)
from volano.training.prefix.row_digests import RowDigests
from volano.training.prefix.task_on_features import (
    FeaturePass,
    FeaturePlan,
    GivenFeatures,
    on_features,
    without_units,
)
from volano.training.prefix.units import PrefixMismatchError

# Examples with which a task on features is compared with the task itself.
_NUM_COMPARED = 8
# Taking up must be so much faster than computing, since a study has other costs for it as well.
_LEAST_GAIN = 2.0
# A study whose trials have more frozen trunks than this trains the others as they are.
_MOST_TRUNKS = 4
# Models that are kept for further trials of the same function.
_MOST_MADE = 8


@dataclass(frozen=True, kw_only=True)
class SharedTrunk:
    """A frozen trunk with what it computes of a study's data.

    Attributes:
        units: its modules by name, as the first task made them.
        plan: what they give.
        data, valid: the examples with their features.
        some: a few examples of both, as the objective takes them.
        some_features: their features.
        inputs: digests of what the trunk got of them.
    """

    units: dict[str, nn.Module]
    plan: FeaturePlan
    data: Arrays
    valid: Arrays
    some: tuple[Batch, Batch]
    some_features: tuple[list[Tensor], list[Tensor]]
    inputs: tuple[Any, Any]


class SharedFeatures:
    """Turns tasks with a frozen trunk into tasks on its features, which are computed once for all
    tasks that have that trunk.

    A task on features learns what the task itself does: from the same weights, in the same order,
    with the same draws. Features are of other batches than those of a training alone, which is a
    difference of rounding. That is compared with the first task, loss and gradient; of each other
    task, that its trunk is the same to the last bit and gets the same input.

    Args:
        device: where the trials train.
        precision: of their forward pass.
        on_notice: hears what is computed once, or why not.
    """

    def __init__(
        self, device: Device, precision: str, on_notice: Callable[[str], None] = lambda _: None
    ) -> None:
        self._device, self._precision, self._on_notice = device, precision, on_notice
        self._digests = RowDigests(device.torch_device)
        self._trunks: list[SharedTrunk] = []
        # Models without their trunks, by the function that made them and the seed.
        self._made: list[tuple[Callable[[], nn.Module], int, SharedTrunk, nn.Module]] = []
        self._num_refused = 0
        self._told: set[str] = set()

    def of(self, task: Task, *, is_asked: bool = False) -> Task:
        """Returns a task on features, or the task itself where there are none to be shared.

        Args:
            is_asked: whether that is done even if it saves little: for a trial that has begun so.
        """
        if self._num_refused >= _MOST_TRUNKS or self._why_not(task) is not None:
            return task
        with random_state_kept(self._device):
            try:
                return self._on_features(task, is_asked=is_asked)
            except Exception as error:  # noqa: BLE001 - a person's code fails as it will
                self._num_refused += 1
                is_own = isinstance(error, PrefixMismatchError)
                self.tell(str(error) if is_own else reason_of(error))
                return task

    def tell_why_not(self, task: Task, model: nn.Module) -> None:
        """Says, once for each reason, why a task whose model has frozen layers is none on
        features."""
        reason = self._why_not(task)
        if self._num_refused >= _MOST_TRUNKS:
            reason = f"it was not for {self._num_refused} trials, and is not tried for others"
        elif len(self._trunks) >= _MOST_TRUNKS:
            reason = reason or f"trials have more than {_MOST_TRUNKS} different ones"
        if reason is not None and has_frozen_layers(model):
            self.tell(reason)

    def tell(self, reason: str) -> None:
        """Says, once, why frozen layers are not shared."""
        if reason not in self._told:
            self._told.add(reason)
            self._on_notice(f"what frozen layers compute is not shared by the trials: {reason}")

    def _why_not(self, task: Task) -> str | None:
        if task.augment is not None:
            return "`augment` makes other examples in each epoch"
        if task.tolerance == "exact":
            return "the task's tolerance is exact"
        if task.valid is None:
            return "there is nothing to evaluate on"
        sets = (task.data, task.valid)
        reasons = (why_streamed(data, task.collate, self._device) for data in sets)
        return next((reason for reason in reasons if reason is not None), None)

    def _on_features(self, task: Task, *, is_asked: bool) -> Task:
        found = self._trunk_and_rest(task, is_asked=is_asked)
        if found is None:
            return task
        trunk, rest = found
        self._check_inputs(task, rest.to(self._device.torch_device), trunk)
        return on_features(task, rest.cpu(), trunk.plan, trunk.data, trunk.valid)

    def _trunk_and_rest(
        self, task: Task, *, is_asked: bool
    ) -> tuple[SharedTrunk, nn.Module] | None:
        """Returns a task's trunk, and its model without that."""
        for made_by, seed, trunk, rest in self._made:
            if made_by is task.model and seed == task.seed:
                return trunk, rest
        model = Session.make_model(task)
        if not has_frozen_layers(model):
            return None
        model = model.to(self._device.torch_device)
        trunk = next((one for one in self._trunks if _is_same(one.units, model)), None)
        if trunk is None:
            if len(self._trunks) >= _MOST_TRUNKS:
                return None
            trunk = self._computed(task, model, is_asked=is_asked)
            self._trunks.append(trunk)
        rest = without_units(model, trunk.plan)
        self._made = [*self._made[1 - _MOST_MADE :], (task.model, task.seed, trunk, rest)]
        return trunk, rest

    # ---- the first task of a trunk

    def _computed(self, task: Task, model: nn.Module, *, is_asked: bool) -> SharedTrunk:
        started = time.perf_counter()
        trees = [_tree_of(data) for data in (task.data, task.valid)]
        first = self._batch(trees[0], 0, task.batch_size)
        found = find_prefix(model, lambda part: self._loss(task, model, part), first, self._device)
        if isinstance(found, str):
            raise PrefixMismatchError(found)
        if not is_asked:
            self._check_worth(task, model, found, first)
            self._check_room(found, sum(map(num_examples, trees)))
        some = tuple(self._batch(tree, 0, _NUM_COMPARED) for tree in trees)
        plans, features, inputs = [], [], []
        for tree, part, training in zip(trees, some, (True, False), strict=True):
            passed = self._passed(task, model, found, part, training=training, digests=True)
            plans.append(passed.plan)
            inputs.append(passed.inputs)
            features.append(self._of_all(task, model, found, tree, passed, training=training))
        if plans[0] != plans[1]:
            raise PrefixMismatchError("evaluation calls its modules otherwise than training")
        few = tuple([f[:_NUM_COMPARED].clone() for f in own] for own in features)
        units = found.boundary.kept_units
        trunk = SharedTrunk(
            units=dict(units), plan=plans[0], some=(some[0], some[1]),
            some_features=(few[0], few[1]), inputs=(inputs[0], inputs[1]),
            data=Arrays((trees[0], tuple(features[0]))),
            valid=Arrays((trees[1], tuple(features[1]))),
        )  # fmt: skip
        self._check_equal(task, model, trunk)
        size = num_bytes([tensor for own in features for tensor in own])
        self._on_notice(
            f"{found.num_frozen} of {found.num_layers} layers are frozen and the same in all "
            f"trials: what they compute of {sum(map(num_examples, trees)):,} examples was computed "
            f"once, {size / 2**20:,.3g} MiB in {time.perf_counter() - started:.2g} s, and is what "
            "trials are trained on (the same within rounding)"
        )
        return trunk

    def _check_worth(
        self, task: Task, model: nn.Module, found: FrozenPrefixFacts, part: Batch
    ) -> None:
        """Raises PrefixMismatchError unless gathering the features of a batch is much faster than
        computing them."""
        features = self._passed(task, model, found, part, training=True).features
        places = torch.arange(num_examples(part), device=self._device.torch_device)
        computing = self._seconds(lambda: self._passed(task, model, found, part, training=True))
        taking = self._seconds(lambda: [column.index_select(0, places) for column in features])
        if computing < _LEAST_GAIN * taking:
            raise PrefixMismatchError(
                "taking up what it computes takes about as long as computing it"
            )

    def _seconds(self, make: Callable[[], object]) -> float:
        timer = StepTimer(make, self._device.synchronize, begun=time.perf_counter())
        timer.warm_up()
        timer.run(0.0)
        return timer.step

    def _check_room(self, found: FrozenPrefixFacts, num: int) -> None:
        free = self._device.free_bytes()
        if free is not None and found.row_bytes * num > FEATURES_SHARE * free:
            raise PrefixMismatchError(
                f"what it computes takes {found.row_bytes * num / 2**20:,.0f} MiB, and there are "
                f"{FEATURES_SHARE * free / 2**20:,.0f} for it"
            )

    def _of_all(
        self, task: Task, model: nn.Module, found: FrozenPrefixFacts, tree: Batch,
        like: FeaturePass, *, training: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Returns the features of a whole set, in its order."""
        whole: list[Tensor] = []
        for start in range(0, num_examples(tree), task.batch_size):
            part = self._batch(tree, start, task.batch_size)
            passed = self._passed(task, model, found, part, training=training)
            if passed.plan != like.plan:
                raise PrefixMismatchError("its results are not alike in all batches")
            if not whole:  # in place, so that filling needs no more memory than what is kept
                whole = [f.new_empty(num_examples(tree), *f.shape[1:]) for f in passed.features]
            for column, rows in zip(whole, passed.features, strict=True):
                column[start : start + len(rows)] = rows
        return whole

    def _passed(
        self, task: Task, model: nn.Module, found: FrozenPrefixFacts, part: Batch,
        *, training: bool, digests: bool = False,
    ) -> FeaturePass:  # fmt: skip
        passed = FeaturePass(found.boundary, num_examples(part), self._digests if digests else None)
        with torch.no_grad(), _put_back(model, training=training):
            passed.passed(lambda: self._loss(task, model, part))
        return passed

    def _check_equal(self, task: Task, model: nn.Module, trunk: SharedTrunk) -> None:
        """Raises PrefixMismatchError if loss or gradient on features is another than the task's."""
        limit = allowed_difference(self._device)
        for part, features, training in zip(
            trunk.some, trunk.some_features, (True, False), strict=True
        ):
            expected = self._gradients(model, training, lambda p=part: self._loss(task, model, p))
            units = {name: model.get_submodule(name) for name in trunk.plan.names}
            without_units(model, trunk.plan)
            given = GivenFeatures(trunk.plan, features)
            try:
                with given.to(model):
                    got = self._gradients(
                        model, training, lambda p=part: self._loss(task, model, p)
                    )
            finally:
                for name, unit in units.items():
                    model.set_submodule(name, unit)
            if not max(map(off, got, expected)) <= limit:
                raise PrefixMismatchError("loss or gradient change if its output is kept")

    def _gradients(
        self, model: nn.Module, training: bool, loss: Callable[[], Any]
    ) -> list[Tensor | None]:
        self._device.seed(0)
        with _put_back(model, training=training):
            total = as_loss(loss(), 1).total
            found: list[Tensor | None] = [total.detach()]
            if training:
                trained = [p for p in model.parameters() if p.requires_grad]
                found += torch.autograd.grad(total, trained, allow_unused=True)
        return found

    # ---- every task

    def _check_inputs(self, task: Task, model: nn.Module, trunk: SharedTrunk) -> None:
        """Raises PrefixMismatchError if the trunk of a task gets another input than that of the
        first, or is used otherwise."""
        for part, features, inputs, training in zip(
            trunk.some, trunk.some_features, trunk.inputs, (True, False), strict=True
        ):
            given = GivenFeatures(trunk.plan, features, self._digests)
            with torch.no_grad(), _put_back(model, training=training), given.to(model):
                total = as_loss(self._loss(task, model, part), 1).total
            if given.inputs != inputs:
                raise PrefixMismatchError("trials give their frozen layers different inputs")
            if not total.isfinite():
                raise PrefixMismatchError("a trial uses other outputs of its frozen layers")

    def _loss(self, task: Task, model: nn.Module, part: Batch) -> Any:
        # A copy: objectives may write into their batch.
        copied = map_tensors(lambda tensor: tensor.clone(), part)
        with self._device.autocast(self._precision):
            return task.objective(model, copied)

    def _batch(self, tree: Batch, start: int, count: int) -> Batch:
        places = torch.arange(start, min(start + count, num_examples(tree)))
        return self._device.move(take(tree, places.to(next(tensors_of(tree)).device)))


@contextlib.contextmanager
def _put_back(model: nn.Module, *, training: bool) -> Iterator[None]:
    """A context in which a model is in its own mode of training, in which a frozen part may be in
    evaluation mode, or in evaluation mode; then modes and buffers are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with modes_kept(model):
        if not training:
            model.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _tree_of(data: Any) -> Batch:
    rows = rows_of(data)
    assert rows is not None  # it can be resident
    return rows.tensors()


def _is_same(units: dict[str, nn.Module], model: nn.Module) -> bool:
    """Checks whether a model has the very modules: of the same classes with the same settings, in
    the same modes, with the same numbers to the last bit."""
    own = dict(model.named_modules())
    for name, unit in units.items():
        other = own.get(name)
        if other is None or type(other) is not type(unit):
            return False
        found = Comparison()
        found.models(name, unit, other)
        if found.differences or found.numbers:
            return False
        pairs = [
            zip(a, b, strict=True)
            for a, b in (
                (unit.parameters(), other.parameters()), (unit.buffers(), other.buffers())
            )
        ]  # fmt: skip
        if not all(_alike(mine, its) for pair in pairs for mine, its in pair):
            return False
    return True


def _alike(one: Tensor, other: Tensor) -> bool:
    is_frozen = not one.requires_grad and not other.requires_grad
    return is_frozen and one.dtype == other.dtype and torch.equal(one, other)
