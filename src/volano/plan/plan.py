"""The Plan: HOW a task is run, as a value. It imports no torch.

Every knob stands here with its semantics class, the promise of what it can do to the numbers:

- ``exact``: bitwise the same numbers.
- ``rounding``: the same mathematics, rounded elsewhere.
- ``precision``: arithmetic in a narrower type.

There is no class for knobs that change the experiment: those stand in the Task.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from volano.errors import PlanError

SCHEMA_VERSION = 3
# Knobs that a schema version brought, with what every plan before it meant.
_FIRST_READ = 2
_SINCE = {3: {"recompute": "none", "activation_budget": 1.0, "offload": "none"}}
Semantics = Literal["exact", "rounding", "precision"]
SEMANTICS: tuple[Semantics, ...] = ("exact", "rounding", "precision")


def _knob(default: Any, semantics: Semantics, choices: tuple[Any, ...] | None = None) -> Any:
    return field(default=default, metadata={"semantics": semantics, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Complete: two runs of a task under equal plans on equal machines execute the same operations.

    Attributes:
        device: as torch writes it, ``"cpu"`` or ``"xpu:0"``.
        precision: type of the arithmetic; parameters and optimizer state stay fp32 (autocast). ``tf32`` leaves tensors
            in fp32 and lets matrix units round their inputs.
        memory_format: of 4-dimensional parameters, which convolutions then give to what flows through them.
        compile: whether the objective runs through ``torch.compile``.
        micro_batch: examples per forward and backward pass; None is the whole batch.
        recompute: what the backward pass computes anew instead of keeping it: ``"blocks"`` keeps the inputs of the
            model's repeated blocks only (Chen et al. 2016, arXiv:1604.06174).
        activation_budget: share of the activations that a compiled step may keep, 0 to 1; the partitioner of
            ``torch.compile`` recomputes the rest. It has an effect with ``compile`` only.
        offload: what lies in host memory while the device does not need it: ``"activations"`` between forward and
            backward pass, ``"optimizer"`` its state between updates, ``"all"`` both.
        optimizer: implementation of the same update: ``"as_given"``, ``"foreach"`` (multi-tensor) or ``"fused"`` (one
            kernel). Where a class lacks it, or the user chose one, that stands.
        feed: ``"resident"`` keeps the encoded set on the device, ``"ring"`` streams it.
        workers: processes of a ring that fetch and collate; 0 does it in the training process.
        prefetch: batches that each worker keeps ready.
        threads: of the host's arithmetic; None leaves torch's own number.
        sharding: what ranks that train together do with parameters, gradients and optimizer state: ``"none"`` leaves
            each a whole copy (distributed data parallel), ``"full"`` gives each a part (FSDP2; ZeRO stage 3).
        allocator: ``"keep"`` holds freed host memory for the next step, ``"system"`` leaves it to the C library,
            ``"return"`` gives large blocks back at once, so that a process takes hardly more than lives in it.

    Raises:
        PlanError: at birth, when a knob has a value that it does not know.
    """

    device: str = _knob("cpu", "rounding")
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = _knob("fp32", "precision", ("fp32", "tf32", "bf16", "fp16"))
    memory_format: Literal["contiguous", "channels_last"] = _knob(
        "contiguous", "rounding", ("contiguous", "channels_last")
    )
    compile: bool = _knob(False, "rounding", (False, True))
    micro_batch: int | None = _knob(None, "rounding")
    recompute: Literal["none", "blocks"] = _knob("none", "exact", ("none", "blocks"))
    activation_budget: float = _knob(1.0, "rounding")
    offload: Literal["none", "activations", "optimizer", "all"] = _knob(
        "none", "exact", ("none", "activations", "optimizer", "all")
    )
    optimizer: Literal["as_given", "foreach", "fused"] = _knob("as_given", "rounding", ("as_given", "foreach", "fused"))
    feed: Literal["resident", "ring"] = _knob("ring", "exact", ("resident", "ring"))
    workers: int = _knob(0, "exact")
    prefetch: int = _knob(2, "exact")
    threads: int | None = _knob(None, "rounding")
    sharding: Literal["none", "full"] = _knob("none", "rounding", ("none", "full"))
    allocator: Literal["system", "keep", "return"] = _knob("system", "exact", ("system", "keep", "return"))

    def __post_init__(self) -> None:
        for knob in dataclasses.fields(self):
            choices = knob.metadata["choices"]
            value = getattr(self, knob.name)
            if choices is not None and (type(value), value) not in {(type(choice), choice) for choice in choices}:
                raise PlanError(f"{knob.name} is one of {', '.join(map(str, choices))}", got=repr(value))
        if not (isinstance(self.device, str) and self.device):
            raise PlanError("device is a torch device's name", got=repr(self.device))
        budget = self.activation_budget
        if isinstance(budget, bool) or not isinstance(budget, float | int) or not 0 <= budget <= 1:
            raise PlanError("activation_budget is a share of the activations, 0 to 1", got=repr(budget))
        object.__setattr__(self, "activation_budget", float(budget))
        for name, least in (("workers", 0), ("prefetch", 1), ("micro_batch", 1), ("threads", 1)):
            value = getattr(self, name)
            optional = name in ("micro_batch", "threads")
            if value is None and optional:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise PlanError(f"{name} is a whole number, at least {least}", got=repr(value))

    @classmethod
    def baseline(cls, device: str = "cpu") -> Plan:
        """Plain eager PyTorch: fp32, contiguous, the whole batch, the optimizer as given, one process."""
        return cls(device=device)

    @classmethod
    def default(cls, device: str = "cpu") -> Plan:
        """The ``exact`` and ``rounding`` choices that are safe anywhere; never ``precision``."""
        return cls(
            device=device,
            memory_format="channels_last",
            optimizer="fused",
            feed="resident",
            workers=1,
            allocator="keep",
        )

    def pin(self, **knobs: Any) -> Plan:
        """This plan with some knobs set.

        Raises:
            PlanError: an unknown knob or value.
        """
        known = {knob.name for knob in dataclasses.fields(self)}
        for name in knobs:
            if name not in known:
                raise PlanError(f"A plan's knobs are {', '.join(sorted(known))}", got=repr(name))
        return dataclasses.replace(self, **knobs)

    def changes(self, other: Plan) -> dict[str, tuple[Any, Any]]:
        """Knob -> (value here, value in ``other``), for those that differ."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    def semantics(self) -> Semantics:
        """The widest class among the knobs that differ from the baseline on the same device."""
        classes: list[Semantics] = [semantics_of(name) for name in self.changes(Plan.baseline(self.device))]
        return SEMANTICS[max((SEMANTICS.index(name) for name in classes), default=0)]

    def to_json(self) -> dict[str, Any]:
        """All knobs and the schema's version."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Plan:
        """The inverse of :meth:`to_json`. A plan of an earlier schema version means what it meant then.

        Raises:
            PlanError: a later schema version, a missing or an unknown knob, or a value that it does not know.
        """
        if not isinstance(value, dict):
            raise PlanError("A plan is a JSON object", got=type(value).__name__)
        version = value.get("schema_version")
        if version not in (_FIRST_READ, *_SINCE):
            raise PlanError(
                f"This version of Volano reads plans of schema versions {_FIRST_READ} to {SCHEMA_VERSION}",
                got=repr(version),
                remedy="Let the run be planned anew, or use the version of Volano that wrote it",
            )
        knobs = {name: setting for name, setting in value.items() if name != "schema_version"}
        for since, brought in _SINCE.items():
            if version < since:
                knobs = {**brought, **knobs}
        names = {knob.name for knob in dataclasses.fields(cls)}
        if knobs.keys() != names:
            missing, unknown = sorted(names - knobs.keys()), sorted(knobs.keys() - names)
            raise PlanError("A plan names every knob once", got=f"missing {missing}, unknown {unknown}")
        return cls(**knobs)

    def save(self, path: Path) -> None:
        """Writes ``plan.json``."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Reads a file that :meth:`save` wrote.

        Raises:
            PlanError: it is not there, is not JSON, or is not a plan.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError("A plan's file can be read", got=f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise PlanError("A plan's file holds JSON", got=f"{path}: {error}") from error
        return cls.from_json(value)


def semantics_of(knob: str) -> Semantics:
    """The semantics class of a knob by name.

    Raises:
        PlanError: no such knob.
    """
    for candidate in dataclasses.fields(Plan):
        if candidate.name == knob:
            return candidate.metadata["semantics"]
    raise PlanError("A plan's knobs are the fields of Plan", got=repr(knob))
