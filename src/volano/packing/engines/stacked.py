"""The engine that trains all members in one forward and one backward pass, over stacked tensors:
traced, and compiled."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from volano.data import Feed, counter_hash, in_sequence
from volano.device import Device
from volano.device.torch_private import has_hooks, has_hooks_on_all_modules
from volano.packing.engines.augmentation import PackAugmentation
from volano.packing.engines.engine import Engine
from volano.packing.member import MemberState
from volano.packing.optim.per_member import StockOptimizer
from volano.packing.optim.stacked_update import StackedUpdate, why_not_flat
from volano.packing.pack_feed import PackBatch, shape_of
from volano.packing.program.program import (
    Graph,
    Inputs,
    NoOtherDraws,
    Outputs,
    numbers_as_tensors,
)
from volano.packing.program.random_draws import Draws, is_dropout_fused
from volano.packing.program.stack import Stack, StackedEma
from volano.packing.program_cache import ProgramCache, ProgramKey
from volano.packing.refusal import NotPackable
from volano.plan import Plan
from volano.task import Batch, tensors_of
from volano.training import evaluate
from volano.training.evaluate import EVALUATION_SEEDS, means_of, sums_of
from volano.training.graphs.recorded_call import RecordedCall
from volano.training.optim.ema import Ema
from volano.training.step import MODEL_SEEDS

# Each shape of a batch needs a program of its own, which takes 0.1 to 0.3 s to trace. A smaller
# last batch and a few lengths are worth it; a new length for every batch is not.
_MOST_SHAPES = 8
# Parameters of a member up to which the update of all members in one pass, operator by operator, is
# sooner than each member's own fused one on a CPU.
_MOST_ELEMENTS = 10_000


class Stacked(Engine):
    """An engine whose layers follow the batching rules of packs, traced once into a graph of
    operators.

    Args:
        solos: the members.
        family: the family of the members.
        plan, device: plan and device, as for a training alone.

    Raises:
        NotPackable: at the first step, if the engine does not take something.
    """

    name: ClassVar[str] = "lowered"

    def __init__(
        self, solos: list[MemberState], family: ProgramCache, plan: Plan, device: Device
    ) -> None:
        self._family, self._plan, self._device = family, plan, device
        self._generator = device.generator()
        self._refusal = _why_not_together(solos)
        self._hold(solos)
        if self._stack.reordered is not None:
            self._refusal = (
                f"{self._stack.reordered} in another memory format than the contiguous one"
            )

    def step(self, batch: PackBatch) -> Tensor:
        return self.ready(batch)()

    def ready(self, batch: PackBatch) -> Callable[[], Tensor]:
        """Returns the step as a function, after everything that may be refused has been done."""
        if self._refusal is not None:
            raise NotPackable(self._refusal)
        steps = [solo.step for solo in self.solos]
        given, is_shared = self._augmented(batch)
        seeds = [counter_hash(MODEL_SEEDS, solo.task.seed, solo.step, 0) for solo in self.solos]
        inputs = self._inputs(self._stack, given, seeds, is_shared=is_shared, training=True)
        train = self._trainer(inputs, steps, is_shared=is_shared)

        def run() -> Tensor:
            losses = train()
            for solo in self.solos:
                solo.step += 1
            return losses

        return run

    def _trainer(
        self, inputs: Inputs, steps: Sequence[int], *, is_shared: bool
    ) -> Callable[[], Tensor]:
        key = (is_shared, shape_of(inputs.batch))
        shares = [] if self._average is None else self._average.shares(steps)
        if self._update is not None:
            return self._whole_trainer(key, inputs, self._update.vectors(steps), shares)
        passes = self._family.structure.training(is_shared=is_shared)
        program = self._program(("step", *key), lambda: self._prepared(passes, inputs))

        def compute(given: Any) -> Outputs:
            outputs = program(inputs._replace(batch=given[0]))
            # The modules hold views of the stack, so a replaced buffer is copied into it.
            for name, tensor in outputs.buffers.items():
                self._stack.buffers[name].copy_(tensor)
            return outputs

        def train() -> Tensor:
            outputs = self._launched((inputs.batch, is_shared), compute)
            losses = _marked(outputs.losses, self._optimizer.step(outputs.gradients, steps))
            if self._average is not None:
                self._average.update(shares)
            return losses

        return train

    def _whole_trainer(
        self, key: ProgramKey, inputs: Inputs, vectors: Tensor, shares: list[Tensor]
    ) -> Callable[[], Tensor]:
        """Returns the step of members that are updated in one pass, by the passes' own program."""
        update = self._update
        assert update is not None
        whole_step = self._whole_step(key, inputs, vectors)

        def compute(given: Any) -> Tensor:
            batch, vectors, shares, _ = given
            losses = whole_step(inputs._replace(batch=batch), update.state, vectors)
            if self._average is not None:
                self._average.update(shares)
            return losses

        def train() -> Tensor:
            losses = self._launched((inputs.batch, vectors, shares, key[0]), compute)
            # Losses are kept for many steps, and each launch writes into the same memory.
            return losses if self._recorded is None else losses.clone()

        return train

    def _launched(self, given: Any, compute: Callable[[Any], Any]) -> Any:
        """Returns ``compute(given)``: by one launch, if the device records steps."""
        recorded = self._recorded
        if recorded is None:
            return compute(given)
        if recorded.launched(given, compute):
            return recorded.result
        self._note_unrecorded("graph", recorded)
        return compute(given)

    def _note_unrecorded(self, name: str, recorded: RecordedCall | None) -> None:
        if recorded is not None and recorded.failure is not None:
            self._family.refused[name] = recorded.failure

    def _is_flat_sooner(self) -> bool:
        """Checks whether the update of all members in one pass, operator by operator, takes less
        time than each member's own fused one."""
        if not self._device.is_cpu:
            return True  # K members' launches take longer than any pass over their parameters
        num_elements = sum(tensor[0].numel() for tensor in self._stack.parameters.values())
        return num_elements <= _MOST_ELEMENTS

    def evaluate(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        if "evaluation" not in self._family.refused:
            try:
                return self.evaluate_together(data, feed)
            except NotPackable as reason:
                # Evaluations alone fall back: a metric that calls ``.item()`` slows no training.
                self._family.refused["evaluation"] = str(reason)
        precision = self._plan.precision
        held = [tensor for solo in self.solos for tensor in solo.kept_model.buffers()]
        rows = [
            evaluate(s.task, s.kept_model, data, feed, self._device, precision=precision)
            for s in self.solos
        ]
        now = [tensor for solo in self.solos for tensor in solo.kept_model.buffers()]
        if len(now) != len(held) or any(
            one is not other for one, other in zip(now, held, strict=True)
        ):
            self.keep(range(len(self.solos)))  # replaced buffers are no longer views of the stack
        return rows

    def evaluate_together(self, data: Any, feed: Feed) -> list[dict[str, float]]:
        stack = self._stack if self._averages is None else self._averages
        keys = list(in_sequence(len(data), self.solos[0].task.batch_size))
        tables: dict[str, list[Tensor]] = {}
        for index, batch in enumerate(feed.batches(keys)):
            seeds = [counter_hash(EVALUATION_SEEDS, solo.task.seed, index) for solo in self.solos]
            inputs = self._inputs(stack, batch, seeds, is_shared=True, training=False)
            program = self._program(
                ("evaluation", shape_of(batch)),
                lambda i=inputs: self._graph(self._family.structure.evaluation(), i),
            )
            for name, values in program(inputs).items():
                tables.setdefault(name, []).append(values.float())
        # Values stay on the device until here: one transfer, and no wait for each batch.
        names = [name for name in tables if name not in ("weight", "total")]
        # [batches, K] each.
        columns = [torch.stack(tables[name]).cpu().double() for name in ("weight", "total", *names)]
        rows = torch.stack(columns, dim=-1).transpose(0, 1).tolist()  # [K, batches, columns]
        return [means_of(sums_of(own, 2 + len(names)), names) for own in rows]

    def settled(self) -> list[MemberState]:
        self._settle()
        for solo in self.solos:
            if solo.ema is not None and solo.task.ema_decay is not None:
                # Made again: the old average lists tensors from before they became views of the
                # stack.
                solo.ema = Ema(solo.model, solo.task.ema_decay, solo.ema.model)
        return self.solos

    def states(self, slots: Sequence[int]) -> list[dict[str, Any]]:
        self._settle()
        return [self.solos[slot].state() for slot in slots]

    def keep(self, slots: Sequence[int]) -> None:
        self._settle()
        self._hold([self.solos[slot] for slot in slots])

    def _settle(self) -> None:
        if self._update is not None:
            self._update.settle([solo.step for solo in self.solos])

    def _hold(self, solos: list[MemberState]) -> None:
        rows = [self._family.numbers(solo) for solo in solos]
        self.solos, self._rows = solos, [row for row in rows if row is not None]
        if len(self._rows) < len(solos):
            raise NotPackable("members that are no longer alike: what one holds has changed")
        self._stack = Stack([solo.model for solo in solos])
        emas = [solo.ema for solo in solos if solo.ema is not None]
        self._averages = Stack([ema.model for ema in emas]) if emas else None
        self._average = None
        if self._averages is not None:
            decays = [solo.task.ema_decay or math.nan for solo in solos]
            self._average = StackedEma(
                self._averages, self._stack, decays, emas[0].model.state_dict().keys()
            )
        self._numbers = numbers_as_tensors(self._rows, next(iter(self._stack.parameters.values())))
        self._optimizer = StockOptimizer(solos)
        is_flat = why_not_flat(solos) is None and self._is_flat_sooner()
        self._update = StackedUpdate(solos, self._stack.parameters) if is_flat else None
        # Made for these members: draws hold their numbers, programs are of their count, and what is
        # recorded works on their memory.
        is_recorded = self._plan.graph
        self._recorded = RecordedCall(self._device) if is_recorded else None
        if is_recorded:  # why a pack of others, for a trial, was not says nothing of this one
            for name in ("graph", "augmentation"):
                self._family.refused.pop(name, None)
        self._augmentation = None
        if solos[0].task.augment is not None:
            self._augmentation = PackAugmentation(
                solos, self._rows, self._device, self._generator, is_recorded=is_recorded
            )
        self._draws: dict[ProgramKey, Draws] = {}
        self._programs: dict[ProgramKey, Any] = {}

    def _inputs(
        self, stack: Stack, batch: Batch, seeds: Sequence[int], *, is_shared: bool, training: bool
    ) -> Inputs:
        # Averages require no gradient, so the trained stack says which tensors are parameters.
        all_of_them = {**stack.parameters, **stack.frozen}
        trained = {name: all_of_them[name] for name in self._stack.parameters}
        frozen = {name: tensor for name, tensor in all_of_them.items() if name not in trained}
        inputs = Inputs(trained, frozen, stack.buffers, self._numbers, [], batch)
        key = (training, is_shared, shape_of(batch))
        if key not in self._draws:
            found = self._family.structure.draws(inputs, is_shared=is_shared, training=training)
            by_kernel = is_dropout_fused(self._device.name)
            own = self._device.default_generator() if by_kernel else None
            self._draws[key] = Draws(
                found, self._rows, own or self._generator, self._device.torch_device,
                by_kernel=by_kernel,
            )  # fmt: skip
        draws = self._draws[key]
        if draws.tensors:
            draws.fill(seeds)
        return inputs._replace(noise=draws.tensors)

    def _program(self, key: ProgramKey, make: Callable[[], Any]) -> Any:
        """Returns the program of a key, made once for all packs of this size of the family."""
        if key not in self._programs:
            is_evaluation = key[0] == "evaluation"
            if sum((k[0] == "evaluation") == is_evaluation for k in self._programs) >= _MOST_SHAPES:
                raise NotPackable(f"batches of more than {_MOST_SHAPES} shapes")
            self._programs[key] = self._family.program((self.name, *key, len(self.solos)), make)
        return self._programs[key]

    def _graph(self, function: Callable[..., Any], *given: Any) -> Graph:
        graph = Graph(function, *given)
        self._family.structure.check_unchanged()
        return graph

    def _prepared(self, function: Callable[..., Any], *given: Any) -> Graph:
        """Returns the graph of a training step as it is run; the first of ``given`` are inputs."""
        return self._graph(function, *given)

    def _whole_step(
        self, key: ProgramKey, inputs: Inputs, vectors: Tensor
    ) -> Callable[..., Tensor]:
        update = self._update
        assert update is not None

        def whole(inputs: Inputs, state: dict[str, tuple[Tensor, ...]], vectors: Tensor) -> Tensor:
            outputs = self._family.structure.training(is_shared=key[0])(inputs)
            for name, tensor in outputs.buffers.items():
                inputs.buffers[name].copy_(tensor)
            return _marked(
                outputs.losses, update(inputs.parameters, outputs.gradients, state, vectors)
            )

        def make() -> tuple[Callable[..., Tensor], frozenset[str]]:
            return self._prepared(whole, inputs, update.state, vectors), frozenset(update.updated)

        program, updated = self._program(("whole step", *key, update.signature), make)
        update.updated |= updated  # the program may have been made for other members
        return program

    def _augmented(self, batch: PackBatch) -> tuple[Batch, bool]:
        """Returns the batch that the members see: one for all that see the same, or one each."""
        if self._augmentation is not None:
            batch = self._augmentation(batch)
            self._note_unrecorded("augmentation", self._augmentation.recorded)
        if batch.is_shared:
            return batch.distinct[0], True
        return batch.stacked(), False


class CompiledStack(Stacked):
    """An engine that compiles the traced graph, with the update of the parameters in it if there is
    a flat one.

    Evaluations are few: they, and batches of another size, run their graphs uncompiled.
    """

    name: ClassVar[str] = "compiled"

    def _is_flat_sooner(self) -> bool:
        return True  # compiled with the step

    def _prepared(self, function: Callable[..., Any], *given: Any) -> Graph:
        graph, batch = self._graph(function, *given), given[0].batch
        first = next(t for t in tensors_of(batch) if t.dim())
        # [batch, ...] if shared, else [K, batch, ...]: a smaller last batch is not worth compiling.
        is_whole = self.solos[0].task.batch_size in first.shape[:2]
        if is_whole and self._family.is_worth_compiling((shape_of(batch),)):
            return graph.compile(*given)
        which = "the first lengths" if is_whole else f"{self.solos[0].task.batch_size} examples"
        self._family.refused["other batches"] = f"only those of {which} run the compiled program"
        return graph


def _marked(losses: Tensor, norms: Tensor | None) -> Tensor:
    """Returns the losses, with NaN for a member whose loss or gradient (which clipping may have
    hidden) is not finite: alone it would stop."""
    is_fine = losses.isfinite() if norms is None else losses.isfinite() & norms.isfinite()
    return torch.where(is_fine, losses, math.nan)


def _why_not_together(solos: Sequence[MemberState]) -> str | None:
    """Returns why members cannot be trained by one program, or None."""
    if has_hooks_on_all_modules():
        return "hooks on all modules"
    if solos and _draws(solos[0].optimizer):
        return "an optimizer that draws random numbers"
    for solo in solos:
        found = _hooked(solo.model)
        if found is not None:
            return f"hooks on {found}"
    return None


def _draws(optimizer: torch.optim.Optimizer) -> bool:
    """Checks whether a step of an optimizer draws: alone its draws would continue the order of the
    forward pass's draws. It is tried on a copy; torch's own optimizers draw nothing."""
    if type(optimizer).__module__.startswith(("torch.optim.", "volano.")):
        return False
    try:
        twin = copy.deepcopy(optimizer)
        for group in twin.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        with NoOtherDraws():
            twin.step()
    except NotPackable:
        return True
    except Exception:  # noqa: BLE001 - it shows again where the members train
        return False
    return False


def _hooked(model: nn.Module) -> str | None:
    # A program is traced once: the Python of hooks would not run at each step. Backward hooks hang
    # on modules and tensors that the program does not have.
    for name, module in model.named_modules():
        if has_hooks(module):
            return f"module {name!r}" if name else "the model"
    for name, parameter in model.named_parameters():
        if has_hooks(parameter):
            return f"parameter {name!r}"
    return None
