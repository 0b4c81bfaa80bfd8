"""The program of a pack: the forward and backward pass of K members as one function of tensors."""

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

from volano.device import Device, random_state_kept
from volano.device.torch_private import (
    FakeTensorMode,
    TorchDispatchMode,
    compile_graph,
    tree_flatten,
    tree_unflatten,
)
from volano.errors import first_line
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

# The seed while draws are noted; a task that sets another one shows by that.
_SEED_OF_NONE = 0x6E6F_2073_6565_6421


class Inputs(NamedTuple):
    """The inputs of a program, each tensor [K, ...]; ``batch`` may be shared by all.

    ``numbers`` are the numbers that vary; ``noise`` the draws.
    """

    parameters: dict[str, Tensor]
    frozen: dict[str, Tensor]
    buffers: dict[str, Tensor]
    numbers: dict[str, Tensor]
    noise: list[tuple[Tensor, ...]]
    batch: Batch


class Outputs(NamedTuple):
    """The outputs of a training program: losses [K], the gradients of the parameters that have one,
    and buffers that the model has replaced instead of changing them in place."""

    losses: Tensor
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


class _Holder(nn.Module):
    """A module that calls an objective with a model whose tensors are given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, objective: Callable[..., Any], batch: Batch) -> tuple[Any, dict[str, Tensor]]:
        given = dict(self.model.named_buffers())
        result = objective(self.model, batch)
        after = dict(self.model.named_buffers())
        return result, {name: tensor for name, tensor in after.items() if tensor is not given[name]}


class Structure:
    """The common part of a family's members, as a function of one member's tensors.

    Args:
        varying: the numbers that differ between members.
        model: the first member's model; a copy of it is called.
        device: the device on which they train.
        precision: the precision of the forward pass.
    """

    def __init__(
        self, varying: VaryingNumber, model: nn.Module, device: Device, precision: str
    ) -> None:
        # The objective is called once more than alone, and with tensors without values; the copy
        # keeps the effects of that here.
        task = dataclasses.replace(varying.task, objective=private_copy(varying.task.objective))
        self._varying = dataclasses.replace(varying, task=task)
        self._device, self._precision = device, precision
        self._first = model
        self._held: list[Leaf] = []
        self.names = {slot.where for slot in varying.slots}

    @functools.cached_property
    def _model(self) -> nn.Module:
        try:
            return copy.deepcopy(self._first)
        except Exception as error:  # a model that cannot be copied may raise anything
            raise NotPackable(f"a model that cannot be copied: {first_line(error)}") from error

    @functools.cached_property
    def _holder(self) -> _Holder:
        return _Holder(self._model)

    def check_unchanged(self) -> None:
        """Raises NotPackable if model or objective hold other values than after :meth:`draws`: a
        value that they keep from one pass to the next would be the same at every step, or belong to
        another member."""
        place = changed_leaf(self._held, self._leaves())
        if place is not None:
            raise NotPackable(f"{place} changes with each pass")

    def _leaves(self) -> list[Leaf]:
        roots = {"model": self._model, "objective": self._varying.task.objective}
        return [leaf for name, root in roots.items() for leaf in leaves_of(root, ((name, name),))]

    def draws(self, inputs: Inputs, *, is_shared: bool, training: bool) -> list[Draw]:
        """Returns the draws that one member's forward pass makes.

        To find them the forward pass runs on copies: once with the first member's values, so that
        model and objective have what they keep for later passes, and once without values.

        Args:
            inputs: the program's inputs, without noise.
            is_shared: whether all members share the batch.
            training: whether the model is in training mode, not in evaluation mode.

        Raises:
            NotPackable: the pass makes draws that packs do not support, or depends on values of
                tensors.
        """
        with random_state_kept(self._device):
            # Whatever ran before in this process may have left the very seed that the task sets.
            torch.default_generator.manual_seed(_SEED_OF_NONE)
            others = host_generators()
            try:
                draws = self._noted_twice(inputs, is_shared=is_shared, training=training)
            except NotPackable:
                raise
            except Exception as error:  # a model may raise anything under fake tensors
                if is_out_of_memory(error):
                    raise
                raise NotPackable(first_line(error)) from error
            self.check_unchanged()
            if others != host_generators():
                raise NotPackable("random numbers of Python's or NumPy's")
        return draws

    def _noted_twice(self, inputs: Inputs, *, is_shared: bool, training: bool) -> list[Draw]:
        self._noted(inputs, torch.clone, is_shared=is_shared, training=training)
        self._held = self._leaves()
        unseen = unseen_leaf(self._held)
        if unseen is not None:
            raise NotPackable(f"{unseen} cannot be looked into, and may change with each pass")
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            return self._noted(inputs, fake.from_tensor, is_shared=is_shared, training=training)

    def _noted(
        self, inputs: Inputs, copied: Callable[[Tensor], Tensor], *, is_shared: bool, training: bool
    ) -> list[Draw]:
        def one(tensor: Tensor) -> Tensor:
            # With gradients if there are some in a training alone: code may look at them.
            return copied(tensor.detach()[0]).requires_grad_(training and tensor.requires_grad)

        numbers = {name: one(tensor) for name, tensor in inputs.numbers.items()}
        functions = PackedFunctions(varying=numbers)
        tensors = [{n: one(t) for n, t in group.items()} for group in inputs[:3]]
        batch = map_tensors(copied if is_shared else one, inputs.batch)
        with NoOtherDraws(), functions, torch.set_grad_enabled(training):
            self._call(tensors[0], tensors[1], tensors[2], numbers, batch, training=training)
        return functions.draws

    def training(self, *, is_shared: bool) -> Callable[[Inputs], Outputs]:
        """Returns the training function itself, in Python: forward by ``vmap``, backward by
        autograd."""

        def run(inputs: Inputs) -> Outputs:
            trained = inputs.parameters
            losses, buffers = self._mapped(self._trained, inputs, is_shared=is_shared)
            found = torch.autograd.grad(losses.sum(), list(trained.values()), allow_unused=True)
            # With the parameters' strides: fused updates walk through both by address.
            gradients = {
                n: g.contiguous() for n, g in zip(trained, found, strict=True) if g is not None
            }
            return Outputs(losses.detach(), gradients, buffers)

        return run

    def evaluation(self) -> Callable[[Inputs], dict[str, Tensor]]:
        """Returns the evaluation function: inputs -> ``weight``, ``total`` and the metrics, each
        [K]."""

        def run(inputs: Inputs) -> dict[str, Tensor]:
            with torch.no_grad():
                return self._mapped(self._evaluated, inputs, is_shared=True)

        return run

    def _mapped(self, function: Any, inputs: Inputs, *, is_shared: bool) -> Any:
        def member(*given: Any) -> Any:
            parameters, frozen, buffers, numbers, noise, batch = given
            with PackedFunctions(noise, varying=numbers):
                return function(parameters, frozen, buffers, numbers, batch)

        # A shared batch is not mapped: without the members' dimension it may be any tree.
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
        self, parameters: Mapping[str, Tensor], frozen: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor], numbers: Mapping[str, Tensor], batch: Batch, *,
        training: bool,
    ) -> tuple[Any, dict[str, Tensor]]:  # fmt: skip
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
        function: returns a tree of tensors; it may change its arguments in place.
        given: the function's arguments; their values are not read.

    Raises:
        NotPackable: the function cannot be traced.
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
        except Exception as error:  # a model may raise anything while it is traced
            raise NotPackable(first_line(error)) from error
        _without_idle_nodes(self._module)

    def compile(self, *given: Any) -> Graph:
        """Compiles the graph by Inductor.

        Raises:
            NotPackable: the graph cannot be compiled.
        """
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # About what the compiler itself uses.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._module = compile_graph(self._module, tree_flatten(given)[0])
        except Exception as error:  # a compiler may raise anything
            raise NotPackable(first_line(error)) from error
        return self

    def __call__(self, *given: Any) -> Any:
        with torch.no_grad():
            return tree_unflatten(self._module(*tree_flatten(given)[0]), self._out)


def _without_idle_nodes(module: torch.fx.GraphModule) -> None:
    """Takes out of a traced graph what changes no number: results that are not used, and views of
    a tensor that are that tensor. Each costs microseconds at every step."""
    aten = torch.ops.aten
    for node in module.graph.nodes:
        if node.target in (aten.detach.default, aten.permute.default, aten.view.default):
            (given, is_same) = node.args[0], node.target == aten.detach.default
            if not is_same:
                before, after = given.meta["val"], node.meta["val"]
                is_same = before.shape == after.shape and before.stride() == after.stride()
            is_in_order = node.target != aten.permute.default or (
                list(node.args[1]) == list(range(len(node.args[1])))
            )
            if is_same and is_in_order:
                node.replace_all_uses_with(given)
    module.graph.eliminate_dead_code()
    module.recompile()


class NoOtherDraws(TorchDispatchMode):
    """A mode that refuses operators that draw random numbers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Attention without dropout; attention with dropout is taken apart before it comes here.
        if is_random(func) and "scaled_dot_product" not in str(func):
            raise NotPackable(f"{func} draws random numbers")
        return func(*args, **(kwargs or {}))


def numbers_as_tensors(rows: Sequence[Mapping[str, float]], like: Tensor) -> dict[str, Tensor]:
    """Returns name -> [K] in the type of the parameters, and not narrower than float32: a Python
    number takes the type of the other operand only when it is used."""
    names, dtype = rows[0].keys(), torch.promote_types(like.dtype, torch.float32)
    return {
        name: torch.tensor([row[name] for row in rows], dtype=dtype, device=like.device)
        for name in names
    }
