"""The head of a network, found by passing an example through it: the last linear layer, whose
outputs are the network's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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


def find_head(
    module: nn.Module,
    *inputs: Any,
    whose: str,
    remedy: str = "Name its own size in `preprocessing`",
) -> FoundHead:
    """Finds the head of a network.

    Args:
        module: the network, which is passed ``inputs`` in evaluation mode.
        whose: what the network is, in words.
        remedy: what helps if it does not take them.

    Raises:
        UsageError: it cannot be passed them, or gives no features of a known form.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        with _last_of_linear(module.eval()) as last, torch.no_grad():
            outputs = features_in(module(*inputs), whose)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{whose} must take {[list(value.shape) for value in inputs if value is not None]}",
            got=f"{type(error).__name__}: {error}",
            remedy=f"{remedy}; `debug` shows where",
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode
    num_outputs = outputs.shape[1]
    # The very tensor: a linear layer within may have as many outputs.
    if last and last[0][1].shape == outputs.shape and torch.equal(last[0][1], outputs):
        layer = module.get_submodule(last[0][0])
        assert isinstance(layer, nn.Linear)
        return FoundHead(name=last[0][0], num_features=layer.in_features, num_outputs=num_outputs)
    return FoundHead(name=None, num_features=num_outputs, num_outputs=num_outputs)


@contextlib.contextmanager
def _last_of_linear(module: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """A context that yields a list; it holds the name and the outputs of the last linear layer that
    was called on examples alone, if there was one."""
    last: list[tuple[str, Tensor]] = []

    def note(name: str, given: tuple[Any, ...], found: Any) -> None:
        if isinstance(found, Tensor) and given[0].ndim == found.ndim == 2:
            last[:] = [(name, found)]

    hooks = [
        layer.register_forward_hook(lambda _, given, found, name=name: note(name, given, found))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        yield last
    finally:
        for hook in hooks:
            hook.remove()


def without_head(module: nn.Module, name: str | None) -> nn.Module:
    """Returns a network whose head hands the features on; it is changed in place."""
    if name == "":
        return nn.Identity()
    if name is not None:
        module.set_submodule(name, nn.Identity())
    return module


def features_in(found: Any, whose: str = "The network") -> Tensor:
    """Returns the features [N, F] in what a network gave: a tensor, or an output of transformers.
    Those of places are averaged; of tokens, the first one's are taken.

    Raises:
        UsageError: there are none.
    """
    if not isinstance(found, Tensor):
        names = ("logits", "pooler_output", "last_hidden_state")
        get = found.get if isinstance(found, Mapping) else lambda name: getattr(found, name, None)
        found = next((one for one in map(get, names) if isinstance(one, Tensor)), found)
    if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UsageError(f"{whose} must give logits or features of each example", got=got)
    if found.ndim == 4:
        return found.flatten(2).mean(2)
    return found if found.ndim == 2 else found[:, 0]


class DescribedNetwork(Protocol):
    """A pretrained network, by what a person should know of it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of its own head, if it states them."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """The texts that a person should read."""
        ...

    def in_words(self) -> str:
        """Returns what it is, in words."""
        ...


def about_network(network: DescribedNetwork, classes: Sequence[str]) -> tuple[str, ...]:
    """Returns what a person should know of a pretrained network that is to tell classes apart."""
    num_known = len(set(network.classes) & set(classes))
    replaced = (
        f"its own head knows {num_known:,} of the {len(classes):,} classes already: it is replaced "
        "all the same, by one with the classes in the order of the data",
    )
    return (network.in_words(), *network.notices, *(replaced if num_known else ()))
