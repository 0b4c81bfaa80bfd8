"""The final weights as safetensors: a plain state_dict that any program can load."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from volano.errors import CheckpointError
from volano.record.files import open_regular, read_bytes, written
from volano.training.checkpoints.checkpoint import digest_of


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
            "Tensors must be writable", got=f"{path}: {error}", remedy="Make room"
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
        open_regular(path).close()  # a pipe would never end
        model.load_state_dict(load_file(path))
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


def _noted_digest(path: Path) -> str | None:
    # A file that was copied out of its run's folder has nothing next to it, and is read as it is.
    try:
        return json.loads(read_bytes(path.parent / "run.json")).get("weights_sha256")
    except (OSError, ValueError, AttributeError):
        return None
