"""The tensors of a checkpoint of a sharded model: each rank writes its parts, any number of ranks
reads them.

torch.distributed.checkpoint does it, in safetensors files (its HuggingFaceStorageWriter): its own
format keeps an index that is read by unpickling, and a checkpoint from a stranger must have nothing
to execute.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from volano.errors import CheckpointError

FOLDER = "shards"
_MARK = "sharded tensor"


def take_out(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """The state with a mark in the place of each sharded tensor, and these tensors by their
    place."""
    tensors: dict[str, Tensor] = {}

    def marked(value: Any, place: str) -> Any:
        if not (isinstance(value, Tensor) and hasattr(value, "full_tensor")):
            return None
        tensors[place] = value.detach()
        return {
            _MARK: place,
            "shape": list(value.shape),
            "dtype": str(value.dtype).removeprefix("torch."),
        }

    return _changed(state, marked), tensors


def is_sharded(state: Any) -> bool:
    """Returns whether some tensor of the state is a part of a larger one."""
    return bool(take_out(state)[1])


def put_back(state: Any, folder: Path, template: Callable[[str], Tensor | None]) -> Any:
    """The state with its sharded tensors read from a checkpoint's folder, and sharded as this
    session's are.

    A checkpoint may come from ranks of another number, or from a single process, and go to either.

    Args:
        state: the state that :func:`take_out` gave.
        folder: the folder of the checkpoint.
        template: place -> this session's tensor that is sharded as the result shall be; None if
            there is none.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    wanted: dict[str, Tensor] = {}

    def sharded(value: Any, place: str) -> Any:
        if isinstance(value, dict) and _MARK in value:
            return wanted.setdefault(value[_MARK], _empty(value, template(value[_MARK])))
        if isinstance(value, Tensor):
            like = template(place)
            if like is not None and like.shape == value.shape:
                return _cut(value, like)
        return None

    result = _changed(state, sharded)
    if wanted:
        load_parts(folder / FOLDER, wanted)
    return result


def _changed(value: Any, change: Callable[[Any, str], Any], place: str = "") -> Any:
    """A copy of nested values in which ``change(value, place)`` stands for each of which it is not
    None."""
    changed = change(value, place)
    if changed is not None:
        return changed
    if isinstance(value, dict):
        return {
            name: _changed(item, change, f"{place}.{name}" if place else str(name))
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(
            _changed(item, change, f"{place}.{number}") for number, item in enumerate(value)
        )
    return value


def _empty(mark: dict[str, Any], like: Tensor | None) -> Tensor:
    dtype = getattr(torch, mark["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(
            "A checkpoint's tensors must have a type of torch's", got=repr(mark["dtype"])
        )
    if like is not None and list(like.shape) == mark["shape"]:
        return torch.empty_like(like, dtype=dtype)
    return torch.empty(mark["shape"], dtype=dtype)


def _cut(tensor: Tensor, like: Tensor) -> Tensor:
    """Returns this rank's part of a whole tensor, cut as ``like`` is; the whole tensor if ``like``
    is whole."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)  # pyright: ignore[reportAttributeAccessIssue]


def save(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Writes every rank's parts. All ranks call it, with the same names.

    Raises:
        CheckpointError: it could not be done, on any of them.
    """
    from torch.distributed import checkpoint

    with _quiet():
        try:
            writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
            checkpoint.save(tensors, storage_writer=writer, no_dist=not dist.is_initialized())
        except (Exception, checkpoint.CheckpointException) as error:  # which is a BaseException
            raise CheckpointError(
                "The parts of a checkpoint must be writable", got=f"{folder}: {_first(error)}"
            ) from error


def load_parts(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fills tensors, sharded or whole, in place. All ranks call it.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    from torch.distributed import checkpoint

    with _quiet():
        try:
            reader = checkpoint.HuggingFaceStorageReader(str(folder))
            checkpoint.load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
        except (Exception, checkpoint.CheckpointException) as error:  # which is a BaseException
            raise CheckpointError(
                "The parts of a checkpoint must be readable", got=f"{folder}: {_first(error)}"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # torch tells of its own deprecations and of a single process there, on which no user can act.
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
