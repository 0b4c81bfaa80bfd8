"""The plan of a script: what is done otherwise than the script does it, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from volano.errors import PlanError
from volano.plan import SEMANTICS, Semantics
from volano.plan.plan import read_plan, write_plan
from volano.script.hosts import OF_LOADERS, arguments_of_host
from volano.thread_waits import SPIN_COUNT

SCHEMA_VERSION = 1
# More is a mistake, or somebody who wants to hurt the machine: files of plans travel.
_MOST_WORKERS, _MOST_THREADS, _MOST_BATCHES, _MOST_SPINS = 1024, 4096, 4096, 10**9


def _setting(
    semantics: Semantics,
    *,
    words: str,
    choices: tuple[Any, ...] | None = None,
    least: int = 0,
    most: int = 0,
) -> Any:
    """Declares a field of :class:`ScriptPlan`: its semantics class, its values (one of
    ``choices``, or a whole number from ``least`` to ``most``), and its text, ``{}`` for the
    value."""
    about = dict(locals())
    return field(default=None, metadata=about)


_YES_OR_NO = (False, True)


@dataclass(frozen=True, kw_only=True)
class ScriptPlan:
    """A plan for a script. None leaves a setting as the script has it.

    Attributes:
        num_workers: processes of each ``DataLoader`` that is read while a model is trained.
        pin_memory: whether batches are copied to page-locked memory.
        prefetch_factor: batches that each worker keeps ready.
        persistent_workers: whether workers live on between epochs.
        precision: type of the arithmetic in the outermost call of a model in training mode.
        memory_format: memory format of the model's 4-dimensional parameters and inputs.
        fused: whether optimizers update in one kernel where they can.
        compile: mode of ``torch.compile`` for the outermost model.
        threads: threads of the host's arithmetic.
        cudnn_benchmark: whether cuDNN measures its algorithms.
        non_blocking: whether copies from page-locked memory return before they are done.
        allocator: ``"keep"`` has the C library keep freed memory of the host for the next step, see
            :mod:`volano.device.memory.allocator`.
        spin_count: how often a thread of the host's arithmetic looks whether the others are there
            before it sleeps, see :mod:`volano.thread_waits`.

    Raises:
        PlanError: when the plan is made, if a setting has an unknown value.
    """

    num_workers: int | None = _setting("exact", most=_MOST_WORKERS, words="num_workers={}")
    pin_memory: bool | None = _setting("exact", choices=_YES_OR_NO, words="pin_memory={}")
    prefetch_factor: int | None = _setting(
        "exact", least=1, most=_MOST_BATCHES, words="prefetch_factor={}"
    )
    persistent_workers: bool | None = _setting(
        "exact", choices=_YES_OR_NO, words="persistent_workers={}"
    )
    precision: Literal["tf32", "bf16", "fp16"] | None = _setting(
        "precision", choices=("tf32", "bf16", "fp16"), words="{}"
    )
    memory_format: Literal["channels_last"] | None = _setting(
        "rounding", choices=("channels_last",), words="{}"
    )
    fused: bool | None = _setting("rounding", choices=_YES_OR_NO, words="fused={}")
    compile: str | None = _setting(
        "rounding",
        choices=("default", "reduce-overhead", "max-autotune"),
        words="torch.compile ({})",
    )
    threads: int | None = _setting("rounding", least=1, most=_MOST_THREADS, words="threads={}")
    cudnn_benchmark: bool | None = _setting(
        "rounding", choices=_YES_OR_NO, words="cudnn.benchmark={}"
    )
    non_blocking: bool | None = _setting("exact", choices=_YES_OR_NO, words="non_blocking={}")
    allocator: Literal["keep"] | None = _setting("exact", choices=("keep",), words="allocator={}")
    spin_count: int | None = _setting("exact", most=_MOST_SPINS, words=SPIN_COUNT + "={}")

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):
            value = getattr(self, declared.name)
            if value is not None:
                _check(declared.name, value, declared.metadata)

    def settings(self) -> dict[str, Any]:
        """Returns what the plan sets, in the plan's order."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value is not None}

    @property
    def is_empty(self) -> bool:
        """The answer whether the script runs as it is."""
        return not self.settings()

    def semantics(self) -> Semantics:
        """The widest class among the settings."""
        classes = [semantics_of_setting(name) for name in self.settings()]
        return SEMANTICS[max((SEMANTICS.index(found) for found in classes), default=0)]

    def in_words(self) -> str:
        """Returns the settings as one line."""
        about = {declared.name: declared.metadata["words"] for declared in dataclasses.fields(self)}
        said = [about[name].format(value) for name, value in self.settings().items()]
        return ", ".join(said) or "as it is"

    def for_lightning(self) -> dict[str, Any]:
        """Returns keyword arguments of ``lightning.Trainer`` for what it has arguments for."""
        return self._for("lightning")

    def for_transformers(self) -> dict[str, Any]:
        """Returns keyword arguments of ``transformers.TrainingArguments``."""
        return self._for("transformers")

    def for_accelerate(self) -> dict[str, Any]:
        """Returns keyword arguments of ``accelerate.Accelerator``."""
        return self._for("accelerate")

    def for_loader(self) -> dict[str, Any]:
        """Returns keyword arguments of ``torch.utils.data.DataLoader``."""
        return {name: value for name, value in self.settings().items() if name in OF_LOADERS}

    def for_ranks(self, num_ranks: int, num_cores: int) -> ScriptPlan:
        """Returns what of a plan for one process holds for each of several ranks that share a
        machine's cores: not its threads, and workers only if there is a core for each."""
        left = {"threads"}
        if num_ranks * ((self.num_workers or 0) + 1) > num_cores:
            left |= {"num_workers", "prefetch_factor", "persistent_workers"}
        return dataclasses.replace(self, **dict.fromkeys(left))

    def _for(self, host: str) -> dict[str, Any]:
        found = arguments_of_host(host, self.settings()).values()
        return {name: value for arguments in found for name, value in arguments.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns what the plan sets, and the schema's version."""
        return {"schema_version": SCHEMA_VERSION, **self.settings()}

    @classmethod
    def from_json(cls, value: Any) -> ScriptPlan:
        """Reads the result of :meth:`to_json`.

        Raises:
            PlanError: another schema version, an unknown setting, or an unknown value.
        """
        if not isinstance(value, dict):
            raise PlanError("A script's plan must be a JSON object", got=type(value).__name__)
        settings = dict(value)
        version = settings.pop("schema_version", None)
        if type(version) is not int or version != SCHEMA_VERSION:
            raise PlanError(
                f"`schema_version` of a script's plan must be {SCHEMA_VERSION}",
                got=repr(version),
                remedy="Let `volano explain SCRIPT.py` find it again",
            )
        known = [declared.name for declared in dataclasses.fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise PlanError(
                f"A script's plan must set some of {', '.join(known)}", got=", ".join(unknown)
            )
        return cls(**settings)

    def save(self, path: Path) -> None:
        """Writes the plan as JSON."""
        write_plan(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> ScriptPlan:
        """Reads a file that :meth:`save` wrote.

        Raises:
            PlanError: the file cannot be read, or is not a script's plan.
        """
        return cls.from_json(read_plan(path))


def semantics_of_setting(name: str) -> Semantics:
    """Returns the semantics class of a setting of :class:`ScriptPlan`."""
    return ScriptPlan.__dataclass_fields__[name].metadata["semantics"]


def _check(name: str, value: Any, about: Mapping[str, Any]) -> None:
    choices, least, most = about["choices"], about["least"], about["most"]
    if choices is None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise PlanError(
                f"`{name}` must be a whole number from {least} to {most}, or null", got=repr(value)
            )
    elif not any(type(value) is type(choice) and value == choice for choice in choices):
        raise PlanError(
            f"`{name}` must be one of {', '.join(map(str, choices))}, or null", got=repr(value)
        )
