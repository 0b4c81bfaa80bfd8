"""The first steps of a script: losses, the first gradient and update, by which two
runs of it are compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import Optimizer

_MOST_LOSSES = 32
# Elements of all gradients together that are kept: evenly spaced ones of each parameter.
_MOST_ELEMENTS = 4_000_000


class FirstSteps:
    """The losses of the first backward passes, and gradient and update of each optimizer's first
    step.

    Attributes:
        draws: a digest of the state of the random generators at the first step; empty before it.
    """

    def __init__(self) -> None:
        self.draws = ""
        self._losses: list[Tensor] = []
        self._gradients: dict[str, Tensor] = {}
        self._before: dict[int, list[Tensor]] = {}
        self._updates: dict[str, Tensor] = {}
        self._numbers: dict[int, int] = {}

    def note_loss(self, loss: Tensor) -> None:
        """Takes a loss; it stays on its device, so that nothing waits for it."""
        if len(self._losses) < _MOST_LOSSES:
            self._losses.append(loss.detach().clone())

    def note_gradients(self, key: int, optimizer: Optimizer) -> None:
        """Takes the gradient with which an optimizer steps for the first time."""
        if key in self._numbers:
            return
        number = self._numbers[key] = len(self._numbers)
        self.draws = self.draws or _state_of_generators()
        scale = getattr(optimizer, "grad_scale", None)
        parameters = _parameters_of(optimizer)
        self._before[key] = [_sample(parameter, len(parameters)) for parameter in parameters]
        for place, parameter in enumerate(parameters):
            gradient = parameter.grad
            if gradient is not None:
                if gradient.is_sparse:
                    gradient = gradient.coalesce().values()
                sample = _sample(gradient, len(parameters))
                if isinstance(scale, Tensor):  # an optimizer of one's own may call anything so
                    sample = sample / scale.to(sample.device)
                self._gradients[f"gradient.{number}.{place}"] = sample

    def note_update(self, key: int, optimizer: Optimizer) -> None:
        """Takes what that step has changed."""
        before = self._before.pop(key, None)
        if before is None:
            return
        number = self._numbers[key]
        for place, (old, parameter) in enumerate(
            zip(before, _parameters_of(optimizer), strict=False)
        ):
            self._updates[f"update.{number}.{place}"] = _sample(parameter, len(before)) - old

    def losses(self) -> list[float]:
        """Returns the first losses."""
        return [float(loss) for loss in self._losses]

    def save(self, path: Path) -> None:
        """Writes gradients and updates as safetensors."""
        values = {**self._gradients, **self._updates}
        save_file({name: value.float().cpu().contiguous() for name, value in values.items()}, path)


def _state_of_generators() -> str:
    states = [torch.get_rng_state()]
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None:
        states.append(torch.get_device_module(accelerator).get_rng_state())
    return hashlib.sha256(b"".join(state.numpy().tobytes() for state in states)).hexdigest()


def _parameters_of(optimizer: Optimizer) -> list[Any]:
    found = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [parameter for parameter in found if not is_lazy(parameter)]


def _sample(tensor: Tensor, num_tensors: int) -> Tensor:
    """Returns evenly spaced elements in the logical order, whatever the memory format is."""
    most = max(1, _MOST_ELEMENTS // max(1, num_tensors))
    flat = tensor.detach().flatten()
    return flat[:: max(1, -(-flat.numel() // most))].to(torch.float32, copy=True)
