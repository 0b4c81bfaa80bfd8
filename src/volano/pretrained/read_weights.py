"""Reads weights from files, and checks that they fit a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from volano.errors import UsageError, reason_of

_MOST_NAMED = 4
# Keys under which training programs keep the weights among other things.
_INSIDE = ("state_dict", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put before each name.
_WRAPPERS = ("module.", "_orig_mod.")
# A count of BatchNorm's that older files lack, as torch allows.
_OPTIONAL = "num_batches_tracked"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, safetensors or pickled; of a pickled one tensors alone are
    read (``weights_only=True``), no code.

    Raises:
        UsageError: it cannot be read, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # of a damaged file torch raises whatever its parser meets
        raise UsageError(
            "Weights must be a readable file of tensors and nothing else",
            got=f"{path}: {reason_of(error)[:200]}",
            remedy="Save the state_dict as safetensors",
        ) from error
    for key in _INSIDE:
        found = found[key] if isinstance(found, Mapping) and key in found else found
    others = [] if isinstance(found, Mapping) else [type(found).__name__]
    if not others:
        others = [
            f"{k!r}: {type(v).__name__}" for k, v in found.items() if not isinstance(v, Tensor)
        ]
    if others:
        raise UsageError(
            "Weights must be a state_dict, whose values are tensors",
            got=f"{path} with {', '.join(others[:_MOST_NAMED])}",
        )
    return {_unwrapped(str(name)): tensor for name, tensor in found.items()}


def _unwrapped(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def load_fitting(module: nn.Module, weights: Mapping[str, Tensor], *, whose: str) -> None:
    """Loads weights into a network.

    Raises:
        UsageError: they do not fit; it names tensors and shapes.
    """
    own = module.state_dict()
    left_out = {name for name in own if name.endswith(_OPTIONAL) and name not in weights}
    problems = [
        *(f"{name} is missing" for name in own if name not in weights and name not in left_out),
        *(f"{name} is not of the network" for name in weights if name not in own),
        *(
            f"{name} is {list(weights[name].shape)}, not {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in weights and weights[name].shape != tensor.shape
        ),
    ]
    check_fits(problems, whose)
    module.load_state_dict(weights, strict=not left_out)


def check_fits(
    problems: list[str], whose: str, remedy: str = "Name the network to which they belong"
) -> None:
    """Raises UsageError if weights do not fit a network."""
    if problems:
        more = f", and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
        raise UsageError(
            f"The weights of {whose} must fit its network",
            got=f"{'; '.join(problems[:_MOST_NAMED])}{more}",
            remedy=remedy,
        )


def digest_of_weights(module: nn.Module) -> str:
    """Returns the digest of all tensors of a network, by which a run knows it again."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        content = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(content.view(torch.uint8).numpy().data if content.numel() else b"")
    return digest.hexdigest()[:32]
