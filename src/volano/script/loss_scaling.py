"""Gradients of fp16, scaled for its range inside of a model's call alone.

fp16 has no numbers below 6e-8, where many gradients lie (Micikevicius et al. 2018). torch's
GradScaler multiplies the loss, and has the script divide before it clips and skip steps that have
overflowed. From outside the script has to see gradients as they are, at any place. So the scale is
put on where a gradient enters the model backwards, at its outputs, and taken off where it leaves:
at its parameters and inputs. A step whose gradient has overflowed is skipped by taking its
gradients away.

What is computed of the parameters outside of the model's call (a penalty in the loss) would be
divided as well: the guard of the race strikes such a plan by its first gradient.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from volano.script.notes import Notes
from volano.script.optimizers import after_closure

# Small enough that the first steps, by which a plan is judged, seldom overflow.
_FIRST_SCALE = 2.0**12
_LARGEST_SCALE, _LEAST_SCALE = 2.0**24, 1.0
_STEPS_TO_GROW = 2000  # as GradScaler's


class LossScaling:
    """The scale of the gradients inside of models in fp16.

    Args:
        notes: the hearer of skipped steps.

    Attributes:
        scale: the factor now.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.scale = _FIRST_SCALE
        self._in_graph = 1.0  # of the graph that a backward pass walks through
        self._num_good = 0
        # By id, which is given anew when a parameter has gone.
        self._parameters: dict[int, weakref.ref[Tensor]] = {}
        self._are_finite: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Returns a context in which steps that have overflowed are skipped."""
        handle = register_optimizer_step_pre_hook(self._before_step)
        try:
            yield
        finally:
            handle.remove()

    def watch(self, parameters: list[Any]) -> None:
        """Takes the scale off the gradients of a model's parameters."""
        for parameter in parameters:
            if parameter.is_leaf and not self._is_watched(parameter):
                self._parameters[id(parameter)] = weakref.ref(parameter)
                parameter.register_hook(functools.partial(self._taken_off, id(parameter)))

    def entering(self, tensor: Tensor) -> Tensor:
        """Returns an input of the model, whose gradient has no scale."""
        return _Boundary.apply(tensor, self, False) if tensor.requires_grad else tensor

    def leaving(self, tensor: Tensor) -> Tensor:
        """Returns an output of the model, whose gradient is scaled inside of the model."""
        is_part = tensor.requires_grad and tensor.is_floating_point()
        return _Boundary.apply(tensor, self, True) if is_part else tensor

    def passed(self, gradient: Tensor, scale: float, is_output: bool) -> Tensor:
        """Returns the gradient on the other side of a model's boundary."""
        if is_output:
            self._in_graph = scale
            return gradient * scale
        return gradient / scale

    def _is_watched(self, parameter: Tensor) -> bool:
        known = self._parameters.get(id(parameter))
        return known is not None and known() is parameter

    def _taken_off(self, key: int, gradient: Tensor) -> Tensor:
        # Looked at here: clipping by value makes an infinite gradient finite.
        is_finite = gradient.isfinite().all()
        parameter = self._parameters[key]()
        is_first = parameter is None or parameter.grad is None  # what was left has been cleared
        before = None if is_first else self._are_finite.get(key)
        self._are_finite[key] = is_finite if before is None else before & is_finite
        return gradient if self._in_graph == 1.0 else gradient / self._in_graph

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        replaced = after_closure(args, kwargs, functools.partial(self._judge, optimizer))
        if replaced is None:
            self._judge(optimizer)
        return replaced

    def _judge(self, optimizer: Optimizer) -> None:
        """Takes away the gradients of a step that has overflowed, which skips it."""
        self._in_graph = 1.0
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        watched = [p for p in parameters if p.grad is not None and self._is_watched(p)]
        found = [self._are_finite.pop(id(p), None) for p in watched]
        flags = [flag for flag in found if flag is not None]
        if not flags:
            return
        # Read by the host once a step, as GradScaler does.
        if bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all()):
            self._num_good += 1
            if self._num_good >= _STEPS_TO_GROW:
                self._num_good, self.scale = 0, min(_LARGEST_SCALE, 2 * self.scale)
            return
        self._num_good, self.scale = 0, max(_LEAST_SCALE, self.scale / 2)
        self._notes.left("a step is skipped when its gradient overflows in fp16")
        for parameter in parameters:
            parameter.grad = None


class _Boundary(torch.autograd.Function):
    """The place where a gradient enters or leaves a model: nothing forwards."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, scaling: LossScaling, is_output: bool) -> Tensor:
        ctx.scaling, ctx.scale, ctx.is_output = scaling, scaling.scale, is_output
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        return ctx.scaling.passed(gradient, ctx.scale, ctx.is_output), None, None
