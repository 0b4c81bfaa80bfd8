"""Describes a Task as JSON: the content of ``task.json``, and the digest by which a resumed run
recognizes its experiment."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import torch
from torch import nn

from volano.task.batch import tensors_of
from volano.task.callables import describe_callable, describe_value, digest_tensor
from volano.task.code_digest import code_of
from volano.task.task import Task

SCHEMA_VERSION = 1
# The module of a function of this package, up to the function's name.
_OWN_MODULE = re.compile(r"\bvolano(?:\.[a-z_0-9]+)*\.(?=\w)")
# Begins the name of a module that was loaded from its file, by another name than an import gives.
FILE_MODULE = "volano_user_"
_NUM_PROBES = 8
_NUM_TABLE_PROBES = 64


def describe(task: Task, model: nn.Module) -> dict[str, Any]:
    """Returns the task in words and digests. ``model`` is one that ``task.model()`` made; only
    names and shapes are read."""
    parameters = {
        name: [list(p.shape), str(p.dtype).removeprefix("torch.")]
        for name, p in model.state_dict().items()
    }
    text = {
        "schema_version": SCHEMA_VERSION,
        "name": task.name,
        "model": {
            "made_by": describe_callable(task.model),
            "class": type(model).__name__,
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "structure_digest": _digest(parameters),
        },
        "objective": describe_callable(task.objective),
        "optimizer": describe_callable(task.optimizer),
        "parameter_groups": describe_callable(task.parameter_groups),
        "schedule": describe_callable(task.schedule),
        "collate": describe_callable(task.collate),
        "augment": describe_callable(task.augment),
        "data": describe_data(task.data),
        "valid": None if task.valid is None else describe_data(task.valid),
        "batch_size": task.batch_size,
        "duration": str(task.duration),
        "num_steps": task.num_steps,
        "last_batch": task.last_batch,
        "clip_norm": task.clip_norm,
        "ema_decay": task.ema_decay,
        "evaluate_every": str(task.evaluate_every),
        "seed": task.seed,
        "tolerance": task.tolerance,
        "code": code_of(task, model),
    }
    # Left out if they are as in versions that did not have them.
    if task.keep != "last":
        text |= {"keep": task.keep, "patience": task.patience}
    if task.data_seed is not None:
        text["data_seed"] = task.data_seed
    return {**text, "digest": _digest(text)}


def differences(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the fields in which two descriptions differ, as ``name: mine != other``.

    The module in which Volano keeps a function does not count as a difference: versions may move
    it. Nor does it whether a module was imported or loaded from its file.
    """
    names = sorted((mine.keys() | other.keys()) - {"digest", "code"})
    changed = [
        f"{name}: {mine.get(name)!r} != {other.get(name)!r}"
        for name in names
        if _without_modules(mine.get(name)) != _without_modules(other.get(name))
    ]
    ours, theirs = (
        code if isinstance(code, dict) else {} for code in (mine.get("code"), other.get("code"))
    )
    # Earlier versions kept no code, and another Python compiles the same code to other bytes.
    if all(ours.get(name) == theirs.get(name) for name in ("python", "form")):
        said = {text.partition(":")[0] for text in changed}
        changed += [
            f"the code of {name}: {ours[name]} != {theirs.get(name)}"
            for name in sorted(ours.keys() - said)
            if ours[name] != theirs.get(name)
        ]
    return changed


def _without_modules(value: Any) -> str:
    return _OWN_MODULE.sub("volano.", json.dumps(value, sort_keys=True).replace(FILE_MODULE, ""))


def describe_data(data: Any) -> dict[str, Any]:
    """Returns a set in words: its class, its number of examples and a digest of its content, if it
    has one."""
    text: dict[str, Any] = {"class": type(data).__name__, "num_examples": len(data)}
    fingerprint = getattr(data, "fingerprint", None)
    if callable(fingerprint):
        found = fingerprint()
        is_plain = found is None or isinstance(found, str | int | float | list | dict)
        text["content_digest"] = found if is_plain else str(found)
    elif isinstance(data, torch.utils.data.Subset):
        text["rows_digest"], text["of"] = _digest_rows(data.indices), describe_data(data.dataset)
    elif isinstance(data, torch.utils.data.TensorDataset):
        # A few rows suffice to detect other data; other datasets may apply random transforms, so
        # their rows are not read.
        step = max(1, len(data) // _NUM_PROBES)
        rows = [data[index] for index in range(0, len(data), step)]
        text["content_digest"] = _digest(
            [digest_tensor(tensor) for row in rows for tensor in tensors_of(row)]
        )
    elif hasattr(data, "with_format") and hasattr(data, "features"):
        text["content_digest"] = _digest_table(data)
    return text


def _digest_rows(indices: Any) -> str:
    rows = np.asarray(indices)
    if rows.dtype.kind not in "iu":  # the data behind may be indexed by anything
        return _digest([describe_value(index) for index in indices])
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:32]


def _digest_table(data: Any) -> str:
    # Hugging Face's Dataset: its own fingerprint depends on names and dates of files. The rows are
    # read as they are stored, before a format decodes or a transform changes them.
    stored = data.with_format("arrow")
    step = max(1, len(data) // _NUM_TABLE_PROBES)
    rows = [repr(stored[index].to_pylist()) for index in range(0, len(data), step)]
    return _digest(
        [repr(data.features), sorted(data.column_names), describe_value(data.format), rows]
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
