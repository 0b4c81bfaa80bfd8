"""The head of a network, found by passing an example through it: the last linear layer, whose
outputs are the network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from volano.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class FoundHead:
    """The head of a network.

    Attributes:
        name: the layer's name; None if the network gives features by itself.
        num_features: what goes into it.
        num_outputs: what comes out.
    """

    name: str | None
    num_features: int
    num_outputs: int


def find_head(module: nn.Module, *inputs: Any, whose: str) -> FoundHead:
    """Finds the head of a network.

    Args:
        module: the network, which is passed ``inputs`` in evaluation mode.
        whose: what the network is, in words.

    Raises:
        UsageError: it cannot be passed them, or gives no features of a known form.
    """
    last: list[tuple[str, Tensor]] = []

    def note(name: str, given: tuple[Any, ...], found: Any) -> None:
        if isinstance(found, Tensor) and given[0].ndim == found.ndim == 2:
            last[:] = [(name, found)]

    hooks = [
        layer.register_forward_hook(lambda _, given, found, name=name: note(name, given, found))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    modes = [(part, part.training) for part in module.modules()]
    try:
        with torch.no_grad():
            outputs = features_of(module.eval()(*inputs), whose)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{whose} must take {[list(value.shape) for value in inputs if value is not None]}",
            got=f"{type(error).__name__}: {error}",
            remedy="Name its own size in `preprocessing`; `debug` shows where",
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in modes:
            part.training = mode
    num_outputs = outputs.shape[1]
    # The very tensor: a linear layer within may have as many outputs.
    if last and last[0][1].shape == outputs.shape and torch.equal(last[0][1], outputs):
        layer = module.get_submodule(last[0][0])
        assert isinstance(layer, nn.Linear)
        return FoundHead(name=last[0][0], num_features=layer.in_features, num_outputs=num_outputs)
    return FoundHead(name=None, num_features=num_outputs, num_outputs=num_outputs)


def without_head(module: nn.Module, name: str | None) -> nn.Module:
    """Returns a network whose head hands the features on; it is changed in place."""
    if name == "":
        return nn.Identity()
    if name is not None:
        module.set_submodule(name, nn.Identity())
    return module


def features_of(found: Any, whose: str = "The network") -> Tensor:
    """Returns the features [N, F] in what a network gave: a tensor, or an output of transformers.
    Those of places are averaged; of tokens, the first one's are taken.

    Raises:
        UsageError: there are none.
    """
    if not isinstance(found, Tensor):
        named = found if isinstance(found, Mapping) else vars(found) if found is not None else {}
        names = ("logits", "pooler_output", "last_hidden_state")
        found = next((named[n] for n in names if isinstance(named.get(n), Tensor)), found)
    if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(f"{whose} must give logits or features of each example", got=got)
    if found.ndim == 4:
        return found.flatten(2).mean(2)
    return found if found.ndim == 2 else found[:, 0]
