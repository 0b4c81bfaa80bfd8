"""The final weights as safetensors: a plain state_dict that any program can load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn

from volano.bounded_json import parse_json
from volano.errors import CheckpointError
from volano.record.files import open_regular, read_bytes, remedy_of, written
from volano.training.checkpoints.checkpoint import digest_of

# The final weights of a run, in its folder.
WEIGHTS = "model.safetensors"
_MOST_HEADER_BYTES = 100_000_000  # the library's own bound


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes ``model.state_dict()`` on the host, contiguous; tied tensors are written under each of
    their names.

    Raises:
        CheckpointError: it could not be written.
    """
    # A clone unties shared storage, which the format refuses.
    save_tensors(
        {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in model.state_dict().items()
        },
        path,
    )


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Writes contiguous host tensors as safetensors, so that a reader sees the old file or the new
    one.

    Raises:
        CheckpointError: it could not be written.
    """
    try:
        with written(path) as partial:
            mode = partial.stat().st_mode
            save_file(tensors, partial)
            partial.chmod(mode)  # the library makes files that only their owner may read
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            "Tensors must be writable",
            got=f"{path}: {error}",
            remedy=remedy_of(error) or "Make room on the disk",
        ) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads what :func:`save_weights` wrote into a model of the same structure.

    Raises:
        CheckpointError: the file is missing or damaged (it has not the digest that ``run.json``
            next to it notes), or belongs to another structure.
    """
    try:
        noted = _noted_digest(path)
        if noted is not None and digest_of(path) != noted:
            raise CheckpointError(
                "A run's model.safetensors must have the digest that its run.json notes",
                got=f"another in {path}",
                remedy="It is damaged, or not the run's own; the run's last checkpoint holds the "
                "weights too",
            )
        model.load_state_dict(load_tensors(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            "A run's model.safetensors must be readable", got=f"{path}: {error}"
        ) from error
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise CheckpointError(
            "The weights must belong to the model",
            got=lines[:400],
            remedy="Use the code with which the run was trained",
        ) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        SafetensorError: it is damaged.
    """
    open_regular(path).close()  # a pipe would never end
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:  # the library takes no other names
        return load(read_bytes(path))
    return load_file(path)


def shapes_in(path: Path) -> dict[str, list[int]]:
    """Returns the shape of each tensor of a safetensors file, of which the header alone is read
    (github.com/huggingface/safetensors, "Format").

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError: it is damaged.
    """
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError(f"a header of {length:,} bytes")
        header = parse_json(file.read(length))
    try:
        return {name: list(one["shape"]) for name, one in header.items() if name != "__metadata__"}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"a header without shapes: {error}") from error


def build_and_load(make: Callable[[], nn.Module], path: Path) -> nn.Module:
    """Builds a model that a run's folder describes, and loads its weights. Whether they are its own
    is looked up before memory is taken for it: a stranger may have written the description.

    Raises:
        CheckpointError: as :func:`load_weights`.
    """
    try:
        found = shapes_in(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "A run's model.safetensors must be readable", got=f"{path}: {error}"
        ) from error
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in make().state_dict().items()}
    different = [name for name in sorted(wanted | found) if wanted.get(name) != found.get(name)]
    if different:
        name = different[0]
        raise CheckpointError(
            "The weights must belong to the model",
            got=f"{name} of shape {found.get(name)} in {path}, and the model that the folder "
            f"describes has {wanted.get(name)}",
            remedy="Use the folder as it was written",
        )
    model = make()
    load_weights(model, path)
    return model


def _noted_digest(path: Path) -> str | None:
    # A file that was copied out of its run's folder has nothing next to it, and is read as it is.
    try:
        return parse_json(read_bytes(path.parent / "run.json")).get("weights_sha256")
    except (OSError, ValueError, AttributeError):
        return None
