"""The names that libraries which run other people's loops have for a plan's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Arguments by which a script chooses an implementation of its optimizer itself, or with which the
# fused one is another function.
IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")
OF_LOADERS = ("num_workers", "pin_memory", "prefetch_factor", "persistent_workers")


def arguments_of_host(host: str, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns setting -> the arguments by which a host is told it; settings that it has no
    argument for are left out.

    Args:
        host: ``"lightning"`` (``Trainer``), ``"transformers"`` (``TrainingArguments``) or
            ``"accelerate"`` (``Accelerator``).
        settings: the settings of a script's plan.
    """
    found = {name: _HOSTS[host](name, value) for name, value in settings.items()}
    return {name: arguments for name, arguments in found.items() if arguments}


def _transformers(name: str, value: Any) -> dict[str, Any]:
    if name in OF_LOADERS:
        return {f"dataloader_{name}": value}
    if name == "compile":
        mode = {} if value == "default" else {"torch_compile_mode": value}
        return {"torch_compile": True, **mode}
    if name == "fused":
        return {"optim": "adamw_torch_fused"} if value else {}
    return {value: True} if name == "precision" else {}


def _lightning(name: str, value: Any) -> dict[str, Any]:
    if name == "precision" and value != "tf32":
        return {"precision": {"bf16": "bf16-mixed", "fp16": "16-mixed"}[value]}
    return {"benchmark": value} if name == "cudnn_benchmark" else {}


def _accelerate(name: str, value: Any) -> dict[str, Any]:
    if name == "precision" and value != "tf32":
        return {"mixed_precision": value}
    return {"dynamo_backend": "inductor"} if (name, value) == ("compile", "default") else {}


_HOSTS: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "transformers": _transformers,
    "lightning": _lightning,
    "accelerate": _accelerate,
}
