"""The Plan: HOW a task is run, as a value. It imports no torch.

Every knob stands here with its semantics class, the promise of what it can do to the numbers:

- ``exact``: bitwise the same numbers.
- ``rounding``: the same mathematics, rounded differently.
- ``precision``: arithmetic in a narrower type.

There is no class for knobs that change the experiment: those stand in the Task.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from volano.bounded_json import parse_json
from volano.errors import PlanError

SCHEMA_VERSION = 6
# Knobs that a schema version introduced, with the value that every earlier plan stands for.
_FIRST_READ = 2
_SINCE = {
    3: {"recompute": "none", "activation_budget": 1.0, "offload": "none"},
    4: {"graph": False, "prefix": "computed"},
    5: {"compile_mode": "whole", "conv_benchmark": False},
    6: {"deterministic": False},
}
Semantics = Literal["exact", "rounding", "precision"]
SEMANTICS: tuple[Semantics, ...] = ("exact", "rounding", "precision")


def knob(
    default: Any,
    semantics: Semantics,
    *,
    choices: tuple[Any, ...] | None = None,
    least: int | None = None,
    help: str | None = None,
    words: Mapping[Any, str] = MappingProxyType({}),
    phrase: str | None = None,
    is_captured: bool = True,
    fits_memory: bool = False,
    raced: int | None = None,
    suspicion: int | None = None,
    varies: Any = None,
) -> Any:
    """Declares a field of :class:`Plan`: the only place that describes a knob.

    Args:
        default: its value in plain eager PyTorch.
        semantics: its semantics class.
        choices: all of its values; None for numbers and names.
        least: the least of whole numbers; None is allowed too if it is the default.
        help: help text for its option; None for knobs that the command line does not have.
        words: value -> text in tables; other values use ``phrase``.
        phrase: text with ``{}`` for the value; None stands for the knob's name and the value.
        is_captured: whether a step's memory and operations depend on it, and so predictions do.
        fits_memory: whether it is changed to make a plan fit the memory.
        raced: its turn among the knobs whose values the race compares; None if it is not raced.
        suspicion: its turn among the knobs that may cause a wrong gradient; 1 is the most suspect.
        varies: the value under which two equal runs, or a resumed one, may be rounded differently
            on an accelerator; None if there is none.
    """
    about = {name: value for name, value in locals().items() if name != "default"}
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A complete plan: two runs of a task under equal plans on equal machines execute the same
    operations.

    Attributes:
        device: the device's name as torch writes it, ``"cpu"`` or ``"xpu:0"``.
        precision: type of the arithmetic; parameters and optimizer state stay fp32 (autocast).
            ``tf32`` leaves tensors in fp32 and lets matrix units round their inputs.
        memory_format: memory format of 4-dimensional parameters, which convolutions then give to
            the activations.
        compile: whether the objective runs through ``torch.compile``.
        compile_mode: what is compiled: the objective as a whole (``"whole"``); each of the model's
            repeated blocks, with code that is compiled once for all of them (``"blocks"``); the
            whole, with kernels that are timed against each other (``"max-autotune"``). It has an
            effect with ``compile`` only.
        graph: whether the kernels of a batch's gradient are recorded once and then launched as
            one (a graph of the device).
        micro_batch: examples per forward and backward pass; None is the whole batch.
        recompute: what the backward pass computes again instead of keeping it: ``"blocks"`` keeps
            the inputs of the model's repeated blocks only (Chen et al. 2016, arXiv:1604.06174).
        activation_budget: share of the activations that a compiled step may keep, 0 to 1; the
            partitioner of ``torch.compile`` recomputes the rest. It has an effect with ``compile``
            only.
        offload: what lies in host memory while the device does not need it: ``"activations"``
            between forward and backward pass, ``"optimizer"`` its state between updates, ``"all"``
            both.
        optimizer: implementation of the same update: ``"as_given"``, ``"foreach"`` (multi-tensor)
            or ``"fused"`` (one kernel). If a class lacks it, or the user chose one, the optimizer
            stays as it is.
        feed: ``"resident"`` keeps the encoded set on the device, ``"ring"`` streams it.
        workers: processes of a ring that fetch and collate; 0 does it in the training process.
        prefetch: batches that each worker keeps ready.
        threads: number of threads of the host's arithmetic; None leaves torch's own number.
        sharding: what ranks that train together do with parameters, gradients and optimizer state:
            ``"none"`` leaves each a whole copy (distributed data parallel), ``"full"`` gives each a
            part (FSDP2; ZeRO stage 3), ``"hybrid"`` gives each a part within a machine and leaves
            each machine a whole copy.
        allocator: ``"keep"`` holds freed host memory for the next step, ``"system"`` leaves it to
            the C library, ``"return"`` gives large blocks back at once, so that a process takes
            hardly more memory than its live bytes.
        conv_benchmark: whether the library of convolutions times its algorithms for each new shape,
            instead of guessing the fastest (``torch.backends.cudnn.benchmark``); False leaves the
            process's own setting.
        prefix: the model's frozen modules that get the batch alone: ``"computed"`` at each step, or
            ``"cached"``: what they compute of an example is kept in the first epoch, and taken up
            in the later ones.
        deterministic: whether operations that may give other bits each time are replaced by those
            that give the same (``torch.use_deterministic_algorithms``), and an error if there is
            none. The planner never chooses it: a person does.

    Raises:
        PlanError: when the plan is made, if a knob has an unknown value, or ``deterministic`` comes
            with one that varies.
    """

    device: str = knob("cpu", "rounding", phrase="{}", is_captured=False)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = knob(
        "fp32", "precision", choices=("fp32", "tf32", "bf16", "fp16"), raced=4, suspicion=5,
        help="Precision of the arithmetic: fp32, tf32, bf16 or fp16.", phrase="{}",
    )  # fmt: skip
    memory_format: Literal["contiguous", "channels_last"] = knob(
        "contiguous", "rounding", choices=("contiguous", "channels_last"), raced=3, suspicion=6,
        help="Layout of images: contiguous or channels_last.", phrase="{}",
    )  # fmt: skip
    compile: bool = knob(
        False, "rounding", choices=(False, True), raced=5, suspicion=1,
        help="Compile the model with torch.compile.", words={True: "compile", False: "no compile"},
    )  # fmt: skip
    compile_mode: Literal["whole", "blocks", "max-autotune"] = knob(
        "whole", "rounding", choices=("whole", "blocks", "max-autotune"), is_captured=False,
        raced=9, suspicion=14, varies="max-autotune",
        help="What is compiled: whole, blocks (repeated ones once) or max-autotune.",
        words={"whole": "compiled whole", "blocks": "block by block",
               "max-autotune": "kernels autotuned"},
    )  # fmt: skip
    graph: bool = knob(
        False, "rounding", choices=(False, True), is_captured=False, raced=8, suspicion=13,
        varies=True, help="Record a step's kernels and launch them as one.",
        words={True: "graph", False: "no graph"},
    )  # fmt: skip
    micro_batch: int | None = knob(
        None, "rounding", least=1, fits_memory=True, suspicion=8,
        help="Examples per forward and backward pass.", words={None: "whole batch"},
        phrase="micro-batch {}",
    )  # fmt: skip
    recompute: Literal["none", "blocks"] = knob(
        "none", "exact", choices=("none", "blocks"), fits_memory=True, suspicion=3,
        help="none, or blocks: compute their activations again to save memory.",
        words={"blocks": "recompute", "none": "no recompute"},
    )  # fmt: skip
    activation_budget: float = knob(1.0, "rounding", suspicion=2)
    offload: Literal["none", "activations", "optimizer", "all"] = knob(
        "none", "exact", choices=("none", "activations", "optimizer", "all"), fits_memory=True,
        suspicion=4, help="What is moved to host memory: none, activations, optimizer or all.",
        words={"none": "no offload"},
    )  # fmt: skip
    optimizer: Literal["as_given", "foreach", "fused"] = knob(
        "as_given", "rounding", choices=("as_given", "foreach", "fused"), raced=2, suspicion=7,
        words={"as_given": "optimizer as given"}, phrase="{}",
    )  # fmt: skip
    feed: Literal["resident", "ring"] = knob(
        "ring",
        "exact",
        choices=("resident", "ring"),
        help="resident (data kept on the device) or ring (streamed).",
        phrase="{}",
    )
    workers: int = knob(
        0,
        "exact",
        least=0,
        help="Processes that make batches (feed ring).",
        words={1: "1 worker"},
        phrase="{} workers",
    )
    prefetch: int = knob(2, "exact", least=1)
    threads: int | None = knob(
        None, "rounding", least=1, is_captured=False, raced=6, suspicion=9,
        help="Threads of the host's arithmetic.",
        words={None: "torch's threads", 1: "1 thread"}, phrase="{} threads",
    )  # fmt: skip
    sharding: Literal["none", "full", "hybrid"] = knob(
        "none", "rounding", choices=("none", "full", "hybrid"), is_captured=False, suspicion=11,
        help="none (each rank a whole copy), full (FSDP2) or hybrid (within machines).",
        words={"full": "sharded", "none": "not sharded", "hybrid": "sharded within machines"},
    )  # fmt: skip
    allocator: Literal["system", "keep", "return"] = knob(
        "system", "exact", choices=("system", "keep", "return"), fits_memory=True, raced=1,
        suspicion=10, words={"keep": "keep memory", "system": "system allocator"},
    )  # fmt: skip
    conv_benchmark: bool = knob(
        False, "rounding", choices=(False, True), is_captured=False, raced=10, suspicion=15,
        varies=True, help="Time the algorithms of convolutions for each shape.",
        words={True: "convolutions benchmarked", False: "no benchmark of convolutions"},
    )  # fmt: skip
    prefix: Literal["computed", "cached"] = knob(
        "computed", "rounding", choices=("computed", "cached"), is_captured=False, raced=7,
        suspicion=12, help="What frozen layers compute: computed at each step, or cached.",
        words={"computed": "prefix computed", "cached": "frozen prefix cached"},
    )  # fmt: skip
    deterministic: bool = knob(
        False, "rounding", choices=(False, True), is_captured=False,
        help="Only operations that give the same bits each time.",
        words={True: "deterministic", False: "not deterministic"},
    )  # fmt: skip

    def __post_init__(self) -> None:
        for declared in dataclasses.fields(self):
            name, value = declared.name, getattr(self, declared.name)
            choices, least = declared.metadata["choices"], declared.metadata["least"]
            if choices is not None and (type(value), value) not in [
                (type(choice), choice) for choice in choices
            ]:  # no set: a file may hold what has no hash
                raise PlanError(
                    f"`{name}` must be one of {', '.join(map(str, choices))}", got=repr(value)
                )
            if least is None or (value is None and declared.default is None):
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise PlanError(
                    f"`{name}` must be a whole number, at least {least}", got=repr(value)
                )
        if not (isinstance(self.device, str) and self.device):
            raise PlanError("`device` must be the name of a torch device", got=repr(self.device))
        budget = self.activation_budget
        if isinstance(budget, bool) or not isinstance(budget, float | int) or not 0 <= budget <= 1:
            raise PlanError(
                "`activation_budget` must be a share of the activations, 0 to 1", got=repr(budget)
            )
        object.__setattr__(self, "activation_budget", float(budget))
        if self.deterministic:
            self._check_repeatable()

    def _check_repeatable(self) -> None:
        for declared in dataclasses.fields(self):
            if varies(declared.name, value := getattr(self, declared.name)):
                raise PlanError(
                    "`deterministic` must come without knobs under which equal runs may differ",
                    got=f"{declared.name}={value!r}",
                    remedy="Leave out one of the two",
                )

    @classmethod
    def baseline(cls, device: str = "cpu") -> Plan:
        """The baseline: plain eager PyTorch in fp32, contiguous, the whole batch, the optimizer as
        given, one process."""
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
        """Returns this plan with some knobs set.

        Raises:
            PlanError: an unknown knob or value.
        """
        known = {knob.name for knob in dataclasses.fields(self)}
        for name in knobs:
            if name not in known:
                raise PlanError(
                    f"A plan's knob must be one of {', '.join(sorted(known))}", got=repr(name)
                )
        return dataclasses.replace(self, **knobs)

    def changes(self, other: Plan) -> dict[str, tuple[Any, Any]]:
        """Returns knob -> (value here, value in ``other``), for the knobs that differ."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}

    @property
    def plain(self) -> Plan:
        """The baseline with which this plan is compared: plain eager PyTorch on the same device,
        deterministic if this plan is, which is a person's wish and no plan's choice."""
        return Plan(device=self.device, deterministic=self.deterministic)

    def semantics(self) -> Semantics:
        """The widest class among the knobs that differ from :attr:`plain`."""
        classes: list[Semantics] = [semantics_of(name) for name in self.changes(self.plain)]
        return SEMANTICS[max((SEMANTICS.index(name) for name in classes), default=0)]

    def to_json(self) -> dict[str, Any]:
        """Returns all knobs and the schema's version."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Plan:
        """Reads the result of :meth:`to_json`. A plan of an earlier schema version keeps its
        meaning of that time.

        Raises:
            PlanError: a later schema version, a missing or an unknown knob, or an unknown value.
        """
        if not isinstance(value, dict):
            raise PlanError("A plan must be a JSON object", got=type(value).__name__)
        version = value.get("schema_version")
        if version not in (_FIRST_READ, *_SINCE):
            raise PlanError(
                f"This version of Volano reads plans of schema versions {_FIRST_READ} to "
                f"{SCHEMA_VERSION}",
                got=repr(version),
                remedy="Have the run planned again, or use the version of Volano that wrote it",
            )
        knobs = {name: setting for name, setting in value.items() if name != "schema_version"}
        for since, brought in _SINCE.items():
            if version < since:
                knobs = {**brought, **knobs}
        names = {knob.name for knob in dataclasses.fields(cls)}
        if knobs.keys() != names:
            missing, unknown = sorted(names - knobs.keys()), sorted(knobs.keys() - names)
            raise PlanError(
                "A plan must name every knob once", got=f"missing {missing}, unknown {unknown}"
            )
        return cls(**knobs)

    def save(self, path: Path) -> None:
        """Writes ``plan.json``."""
        write_plan(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Reads a file that :meth:`save` wrote.

        Raises:
            PlanError: the file does not exist, is not JSON, or is not a plan.
        """
        return cls.from_json(read_plan(path))


def write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Writes a plan, of a task or of a script, as JSON."""
    path.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def read_plan(path: Path) -> Any:
    """Returns the JSON in a plan's file.

    Raises:
        PlanError: the file cannot be read, or holds no JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise PlanError(
            "The plan's file must be readable", got=f"{path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise PlanError("The plan's file must hold JSON", got=f"{path}: {error}") from error


def declaration_of(name: str) -> Mapping[str, Any]:
    """Returns the declaration of a knob by :func:`knob`.

    Raises:
        PlanError: no such knob.
    """
    for declared in dataclasses.fields(Plan):
        if declared.name == name:
            return declared.metadata
    raise PlanError(
        f"A plan's knob must be one of {', '.join(knob.name for knob in dataclasses.fields(Plan))}",
        got=repr(name),
    )


def semantics_of(name: str) -> Semantics:
    """Returns the semantics class of a knob.

    Raises:
        PlanError: no such knob.
    """
    return declaration_of(name)["semantics"]


def varies(name: str, value: Any) -> bool:
    """Checks whether two equal runs may differ under a value of a knob, on an accelerator."""
    varying = declaration_of(name)["varies"]
    return varying is not None and value == varying


def knobs_with(name: str) -> tuple[str, ...]:
    """Returns the knobs whose declaration sets a field (``"fits_memory"``, ``"help"``), in the
    plan's order; for knobs with turns (``"raced"``) in the order of the turns."""
    found = [declared for declared in dataclasses.fields(Plan) if declared.metadata[name]]
    if name in ("raced", "suspicion"):
        found.sort(key=lambda declared: declared.metadata[name])
    return tuple(declared.name for declared in found)
