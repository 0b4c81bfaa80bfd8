"""The forward and backward pass of K members as one function of tensors."""

from __future__ import annotations

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from volano.device import Device
from volano.device.torch_private import (
    FakeTensorMode,
    TorchDispatchMode,
    compile_graph,
    tree_flatten,
    tree_unflatten,
)
from volano.packing.program.function_mode import PackedFunctions
from volano.packing.program.random_draws import Draw, is_random
from volano.packing.refusal import NotPackable
from volano.packing.structure.grouping import VaryingNumber
from volano.packing.structure.side_effects import (
    Leaf,
    changed_leaf,
    host_generators,
    leaves_of,
    private_copy,
    unseen_leaf,
)
from volano.task import Batch, Loss, as_loss, check_objective_result, map_tensors, num_examples
from volano.training import is_out_of_memory


class Inputs(NamedTuple):
    """Of a program, each tensor [K, ...]; ``batch`` may be shared by all.

    ``numbers`` are those that vary; ``noise`` the draws.
    """

    parameters: dict[str, Tensor]
    frozen: dict[str, Tensor]
    buffers: dict[str, Tensor]
    numbers: dict[str, Tensor]
    noise: list[tuple[Tensor, ...]]
    batch: Batch


class Outputs(NamedTuple):
    """Of a training program: losses [K], the gradients of the parameters that have one, and buffers
    that the model has replaced instead of changing them in place."""

    losses: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


class _Holder(nn.Module):
    """Lets an objective be called with a model whose tensors are given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[..., Any], batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        given = dict(self.model.named_buffers())
        result = objective(self.model, batch)
        after = dict(self.model.named_buffers())
        return result, {name: tensor for name, tensor in after.items() if tensor is not given[name]}


class Structure:
    """What the members of a family have in common, as a function of one member's tensors.

    Args:
        varying: the numbers that differ between them.
        model: the first member's; a copy of it is called.
        device: where they train.
        precision: of the forward pass.
    """

    def __init__(
        self, varying: VaryingNumber, model: nn.Module, device: Device, precision: str
    ) -> None:
        # Called once more than alone, and with tensors that hold nothing: what it keeps of that
        # stays here.
        task = dataclasses.replace(varying.task, objective=private_copy(varying.task.objective))
        self._varying, self._device, self._precision = (
            dataclasses.replace(varying, task=task),
            device,
            precision,
        )
        self._first = model
        self._held: list[Leaf] = []
        self.names = {slot.where for slot in varying.slots}

    @functools.cached_property
    def _model(self) -> nn.Module:
        try:
            return copy.deepcopy(self._first)
        except Exception as error:  # whatever a model raises that is not made to be copied
            raise NotPackable(f"a model that cannot be copied: {first_line(error)}") from error

    @functools.cached_property
    def _holder(self) -> _Holder:
        return _Holder(self._model)

    def check_unchanged(self) -> None:
        """Raises NotPackable where model or objective hold other things than after :meth:`draws`:
        what they keep from one pass to the next would be the same at every step, or that of another
        member."""
        place = changed_leaf(self._held, self._leaves())
        if place is not None:
            raise NotPackable(f"{place} changes with each pass")

    def _leaves(self) -> list[Leaf]:
        roots = {"model": self._model, "objective": self._varying.task.objective}
        return [leaf for name, root in roots.items() for leaf in leaves_of(root, ((name, name),))]

    def draws(self, inputs: Inputs, *, is_shared: bool, training: bool) -> list[Draw]:
        """The draws that one member's forward pass makes.

        It is run for that, on copies: once with the first member's values, so that what the model
        or the objective keep for later passes is there, and once without values.

        Args:
            inputs: of the program; without noise.
            is_shared: whether the batch is that of all.
            training: whether in training or in evaluation mode.

        Raises:
            NotPackable: what it draws, or that it depends on values of tensors.
        """
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        others = host_generators()
        try:
            self._noted(inputs, torch.clone, is_shared=is_shared, training=training)
            self._held = self._leaves()
            unseen = unseen_leaf(self._held)
            if unseen is not None:
                raise NotPackable(f"{unseen} cannot be looked into, and may change with each pass")
            with fake:
                draws = self._noted(
                    inputs, fake.from_tensor, is_shared=is_shared, training=training
                )
        except NotPackable:
            raise
        except Exception as error:  # whatever a model does under fake tensors
            if is_out_of_memory(error):
                raise
            raise NotPackable(first_line(error)) from error
        self.check_unchanged()
        if others != host_generators():
            raise NotPackable("random numbers of Python's or NumPy's")
        return draws

    def _noted(
        self, inputs: Inputs, copied: Callable[[Tensor], Tensor], *, is_shared: bool, training: bool
    ) -> list[Draw]:
        def one(tensor: Tensor) -> Tensor:
            # With gradients where there are some alone: code may ask for them.
            return copied(tensor.detach()[0]).requires_grad_(training and tensor.requires_grad)

        numbers = {name: one(tensor) for name, tensor in inputs.numbers.items()}
        functions = PackedFunctions(varying=numbers)
        tensors = [{n: one(t) for n, t in group.items()} for group in inputs[:3]]
        batch = map_tensors(copied if is_shared else one, inputs.batch)
        with NoOtherDraws(), functions, torch.set_grad_enabled(training):
            self._call(tensors[0], tensors[1], tensors[2], numbers, batch, training=training)
        return functions.draws

    def training(self, *, is_shared: bool) -> Callable[[Inputs], Outputs]:
        """The function itself, in Python: forward by ``vmap``, backward by autograd."""

        def run(inputs: Inputs) -> Outputs:
            trained = inputs.parameters
            losses, buffers = self._mapped(self._trained, inputs, is_shared=is_shared)
            found = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
            # Laid out as the parameters are: fused updates walk through both by address.
            gradients = {
                n: g.contiguous() for n, g in zip(trained, found, strict=True) if g is not None
            }
            return Outputs(losses.detach(), gradients, buffers)

        return run

    def evaluation(self) -> Callable[[Inputs], dict[str, Tensor]]:
        """Inputs -> ``weight``, ``total`` and the metrics, each [K]."""

        def run(inputs: Inputs) -> dict[str, Tensor]:
            with torch.no_grad():
                return self._mapped(self._evaluated, inputs, is_shared=True)

        return run

    def _mapped(self, function: Any, inputs: Inputs, *, is_shared: bool) -> Any:
        def member(*given: Any) -> Any:
            parameters, frozen, buffers, numbers, noise, batch = given
            with PackedFunctions(noise, varying=numbers):
                return function(parameters, frozen, buffers, numbers, batch)

        # A shared batch is no input: what is in no dimension of the members may be any tree.
        if is_shared:
            mapped = vmap(lambda *given: member(*given, inputs.batch), randomness="error")
            return mapped(*inputs[:5])
        return vmap(member, randomness="error")(*inputs)

    def _trained(self, *given: Any) -> tuple[Tensor, dict[str, Tensor]]:
        result, buffers = self._call(*given, training=True)
        check_objective_result(result)
        loss = result.total / result.weight if isinstance(result, Loss) else result
        return loss.reshape(()), buffers

    def _evaluated(self, *given: Any) -> dict[str, Tensor]:
        batch = given[-1]
        result, buffers = self._call(*given, training=False)
        if buffers:
            raise NotPackable(f"buffers that an evaluation replaces: {', '.join(buffers)}")
        loss = as_loss(result, num_examples(batch))
        values = {"weight": loss.weight, "total": loss.total, **loss.metrics}
        return {
            n: v if isinstance(v, Tensor) else torch.tensor(float(v)) for n, v in values.items()
        }

    def _call(
        self,
        parameters: Mapping[str, Tensor],
        frozen: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        numbers: Mapping[str, Tensor],
        batch: Batch,
        *,
        training: bool,
    ) -> tuple[Any, dict[str, Tensor]]:
        objective = self._varying.objective(numbers)
        tensors = {
            f"model.{name}": tensor
            for group in (parameters, frozen, buffers)
            for name, tensor in group.items()
        }
        modes = [(module, module.training) for module in self._model.modules()]
        try:
            if not training:
                self._model.eval()
            with (
                self._varying.in_model(self._model, numbers),
                self._device.autocast(self._precision),
            ):
                return functional_call(self._holder, tensors, (objective, batch))
        finally:
            for module, mode in modes:
                module.training = mode


class Graph:
    """The operators that a function of trees of tensors runs, without the Python between them; for
    these shapes.

    Args:
        function: gives a tree of tensors; it may change tensors that it is given in place.
        given: what it takes; their values are not read.

    Raises:
        NotPackable: it cannot be traced.
    """

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        flat, spec = tree_flatten(given)
        self._out: Any = None

        def over_tensors(*tensors: Tensor) -> list[Tensor]:
            outputs, self._out = tree_flatten(function(*tree_unflatten(tensors, spec)))
            return outputs

        try:
            self._module: Any = make_fx(
                over_tensors, tracing_mode="fake", _allow_non_fake_inputs=True
            )(*flat)
        except NotPackable:
            raise
        except Exception as error:  # whatever a model does while it is traced
            raise NotPackable(first_line(error)) from error

    def compile(self, *given: Any) -> Graph:
        """Has Inductor compile it.

        Raises:
            NotPackable: it cannot be compiled.
        """
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # of what the compiler itself uses
                self._module = compile_graph(self._module, tree_flatten(given)[0])
        except Exception as error:  # whatever a compiler does
            raise NotPackable(first_line(error)) from error
        return self

    def __call__(self, *given: Any) -> Any:
        with torch.no_grad():
            return tree_unflatten(self._module(*tree_flatten(given)[0]), self._out)


class NoOtherDraws(TorchDispatchMode):
    """Refuses operators that draw random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Attention that drops nothing; one that does is taken apart before it comes here.
        if is_random(func) and "scaled_dot_product" not in str(func):
            raise NotPackable(f"{func} draws random numbers")
        return func(*args, **(kwargs or {}))


def first_line(error: Exception) -> str:
    """What an error says first."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def numbers_as_tensors(rows: Sequence[Mapping[str, float]], like: Tensor) -> dict[str, Tensor]:
    """Name -> [K], of the type of the parameters, and not narrower than float32: a number of
    Python's takes the type of what it meets only when it has been computed with."""
    names, dtype = rows[0].keys(), torch.promote_types(like.dtype, torch.float32)
    return {
        name: torch.tensor([row[name] for row in rows], dtype=dtype, device=like.device)
        for name in names
    }
