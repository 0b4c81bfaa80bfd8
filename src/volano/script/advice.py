"""Advises what to write into a script so that it runs as its plan: in the words of whoever runs its
loop, with file and line."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from volano.device.memory.allocator import KEEPING_VARIABLES
from volano.script.hosts import IMPLEMENTATIONS, OF_LOADERS, arguments_of_host
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, own_code
from volano.script.source_edits import SourceFile
from volano.thread_waits import SPIN_COUNT

# Whoever runs the loop, by the call that shows it.
_HOSTS = {
    ("transformers", "TrainingArguments"): "transformers",
    ("transformers", "Seq2SeqTrainingArguments"): "transformers",
    ("lightning", "Trainer"): "lightning",
    ("pytorch_lightning", "Trainer"): "lightning",
    ("accelerate", "Accelerator"): "accelerate",
}
# What takes the model there, by the end of its name.
_TAKERS = {"lightning": "fit", "transformers": "Trainer"}
_FUSED = ("Adam", "AdamW", "SGD", "Adagrad")  # of torch.optim
_PARAMETERS = ("parameters", "named_parameters")
# Where a plain line has to stand, in words, with what it sets.
_LINES = {
    "threads": "torch.set_num_threads({}), at the start",
    "cudnn_benchmark": "torch.backends.cudnn.benchmark = {}, at the start",
    "tf32": 'torch.set_float32_matmul_precision("high"), at the start',
    "allocator": f"{KEEPING_VARIABLES} in the environment of python",
    "spin_count": f"{SPIN_COUNT}={{}} in the environment of python",
}


@dataclass(frozen=True, kw_only=True)
class ScriptChange:
    """A change to a script.

    Attributes:
        file, line: the place; line 0 is anywhere before the model is made.
        settings: the settings of the plan that it makes.
        code: what to write there.
        is_literal: whether it is an argument that a diff can write.
    """

    file: str
    line: int
    settings: tuple[str, ...]
    code: str
    is_literal: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the fields."""
        return {**vars(self), "settings": list(self.settings)}

    def in_words(self) -> str:
        """Returns the change as a line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}  {self.code}"


class Advice(NamedTuple):
    """The changes that make a script run as its plan, and those that a diff can write."""

    changes: tuple[ScriptChange, ...]
    diff: str


class _Spot(NamedTuple):
    """A line of a file."""

    file: str
    line: int


class _WrittenCall(NamedTuple):
    """A call in a script's code, and the dotted name of what is called."""

    source: SourceFile
    node: ast.Call
    package: str
    name: str

    @property
    def spot(self) -> _Spot:
        """The place where it begins."""
        return _Spot(self.source.name, self.node.lineno)


def changes_for(plan: ScriptPlan, script: Script, facts: Mapping[str, Any] | None = None) -> Advice:
    """Returns what to write into a script so that it runs as a plan. The files are read and stay as
    they are.

    Args:
        plan: the plan.
        script: the script.
        facts: what was seen of it, as :class:`~volano.script.search.explanation.ScriptExplanation`
            has it: its device, and which of its loaders can only be iterated over.

    Raises:
        UsageError: there is no such script.
    """
    return _Writer(plan, _sources(script), facts or {}).advice()


class _Writer:
    """Collects changes to a script's files."""

    def __init__(
        self, plan: ScriptPlan, sources: list[SourceFile], facts: Mapping[str, Any]
    ) -> None:
        self._plan, self._sources = plan, sources
        self._streams = [tuple(place) for place in facts.get("streams", ())]
        device = facts.get("device")
        # A script's own `device` may be a string.
        kind = None if device is None else device.split(":")[0]
        self._device_type = "torch.device(device).type" if kind is None else f'"{kind}"'
        self._calls = [call for source in sources for call in _calls(source)]
        found = [_HOSTS.get((call.package, call.name)) for call in self._calls]
        self._hosts = {
            host: call for host, call in zip(found, self._calls, strict=True) if host is not None
        }
        self._changes: list[ScriptChange] = []

    def advice(self) -> Advice:
        """Returns the changes."""
        of_host, left = self._of_host(dict(self._plan.settings()))
        for call, values, settings in of_host:
            self._argue(call, values, settings)
        loaders = {name: str(left.pop(name)) for name in OF_LOADERS if name in left}
        if loaders:
            self._each(("DataLoader",), loaders, tuple(loaders))
        if left.pop("fused", None):
            self._each(_FUSED, {"fused": "True"}, ("fused",))
        if left.pop("non_blocking", None):
            for call in self._copies():
                self._argue(call, {"non_blocking": "True"}, ("non_blocking",))
        self._of_model(left)
        order = sorted(self._changes, key=lambda change: (change.file, change.line))
        return Advice(tuple(order), "".join(source.diff() for source in self._sources))

    def _of_host(
        self, settings: dict[str, Any]
    ) -> tuple[list[tuple[_WrittenCall, dict[str, str], tuple[str, ...]]], dict[str, Any]]:
        """Returns what the host's own arguments say, and the settings that they cannot."""
        told = []
        for host, call in self._hosts.items():
            said = arguments_of_host(host, settings)
            if said:
                values = {key: repr(v) for found in said.values() for key, v in found.items()}
                told.append((call, values, tuple(said)))
                settings = {name: value for name, value in settings.items() if name not in said}
        return told, settings

    def _each(
        self, names: Iterable[str], values: dict[str, str], settings: tuple[str, ...]
    ) -> None:
        """Has each call of those classes of torch's give arguments."""
        calls = [call for call in self._calls if call.package == "torch" and call.name in names]
        taken = [(call, self._taken_values(call, values)) for call in calls]
        for call, own in taken:
            if own:
                self._argue(call, own, tuple(name for name in settings if name in own))
        if not any(own for _, own in taken):
            said = ", ".join(f"{name}={value}" for name, value in values.items())
            where = "where the loaders are made" if "DataLoader" in names else "to the optimizer"
            self._note(self._anywhere, settings, f"{said}, {where}")

    def _taken_values(self, call: _WrittenCall, values: dict[str, str]) -> dict[str, str]:
        """Returns those of some arguments that a call takes, as a plan leaves what the script chose
        when it is applied."""
        given = {keyword.arg: _constant(keyword.value) for keyword in call.node.keywords}
        if call.name != "DataLoader":
            return {} if any(given.get(name) for name in IMPLEMENTATIONS) else values
        # None is known to the script alone.
        num_workers = given.get("num_workers", None if None in given else 0)
        place = str(call.source.path)
        is_stream = any(
            file == place and call.node.lineno <= line <= (call.node.end_lineno or line)
            for file, line in self._streams
        )
        is_left = num_workers or is_stream if "num_workers" in values else num_workers == 0
        return {
            name: value for name, value in values.items() if name == "pin_memory" or not is_left
        }

    def _argue(self, call: _WrittenCall, values: dict[str, str], settings: tuple[str, ...]) -> None:
        """Has a call give arguments."""
        is_literal = call.source.set_keywords(call.node, values)
        said = ", ".join(f"{name}={value}" for name, value in values.items())
        function = call.source.code_of(call.node.func)
        self._changes.append(
            ScriptChange(
                **call.spot._asdict(),
                settings=settings,
                code=f"{function}(..., {said})",
                is_literal=is_literal,
            )
        )

    @property
    def _anywhere(self) -> _Spot:
        return _Spot(self._sources[0].name, 0)

    def _note(self, spot: _Spot, settings: tuple[str, ...], code: str) -> None:
        """Notes what no diff can write."""
        self._changes.append(
            ScriptChange(**spot._asdict(), settings=settings, code=code, is_literal=False)
        )

    def _of_model(self, left: dict[str, Any]) -> None:
        """Notes what concerns the models or the process, in a loop of one's own."""
        for setting, value in left.items():
            words = _LINES.get("tf32" if value == "tf32" else setting)
            if words is not None:
                self._note(self._anywhere, (setting,), words.format(value))
                continue
            for name, spot in self._models().items():
                self._of_one_model(setting, value, spot, name)

    def _of_one_model(self, setting: str, value: str, spot: _Spot, name: str) -> None:
        # What is made where it is handed over has no name to be bound to again.
        again = "" if "(" in name else f"{name} = "
        if setting == "memory_format":
            moved = self._moved(name)
            if moved is not None:
                self._argue(moved, {setting: "torch.channels_last"}, (setting,))
            else:
                self._note(spot, (setting,), f"{again}{name}.to({setting}=torch.channels_last)")
        elif setting == "compile":
            mode = "" if value == "default" else f", mode={value!r}"
            self._note(spot, (setting,), f"{again}torch.compile({name}{mode})")
        else:
            kind = "torch.bfloat16" if value == "bf16" else "torch.float16"
            code = f"with torch.autocast({self._device_type}, dtype={kind}): around {name}(...)"
            code += ", .float() behind what it returns"
            if value == "fp16":
                code += ", and torch.amp.GradScaler for the loss and the steps"
            self._note(self._trained_call(name), (setting,), code)

    def _models(self) -> dict[str, _Spot]:
        """Returns the models that are trained, each with the place at which it is whole: where a
        host takes it, or an optimizer its parameters."""
        takers = tuple(name for host, name in _TAKERS.items() if host in self._hosts)
        if takers:
            named = [(c, _taken_model(c.node)) for c in self._calls if c.name.endswith(takers)]
        else:
            named = [(call, _owners_of_parameters(call.node)) for call in self._calls]
            # An optimizer is a class; clipping and counting take parameters too.
            classes = [(call, names) for call, names in named if call.name[:1].isupper() and names]
            named = classes or named
        found: dict[str, _Spot] = {}
        for call, names in named:
            for name in names:
                found.setdefault(name, call.spot)
        return found or {"model": self._anywhere}

    def _trained_call(self, name: str) -> _Spot:
        """Returns where a model is called: of several calls, the one before a backward pass."""
        called = [call.spot for call in self._calls if _code(call.node.func) == name]
        ends = [call.spot for call in self._calls if call.name == "backward"]
        lines = {
            spot: min((end.line - spot.line for end in ends
                       if end.file == spot.file and end.line >= spot.line), default=math.inf)
            for spot in called
        }  # fmt: skip
        return min(called, key=lambda spot: lines[spot], default=self._anywhere)

    def _moved(self, model: str) -> _WrittenCall | None:
        """Returns the call that moves the model to its device."""
        for source in self._sources:
            for node in ast.walk(source.tree):
                value = getattr(node, "value", None)
                if not _is_move(value) or "torch" not in _imports(source.tree):
                    continue
                targets = [_code(target) for target in getattr(node, "targets", ())]
                if model in (*targets, _receiver(value)):
                    return _WrittenCall(source, value, "", "to")
        return None

    def _copies(self) -> Iterator[_WrittenCall]:
        """Yields the calls in loops that move what they loop over to a device."""
        for source in self._sources:
            for loop in ast.walk(source.tree):
                if isinstance(loop, ast.For):
                    inside = [node for statement in loop.body for node in ast.walk(statement)]
                    fresh = {
                        node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)
                    }
                    for node in inside:
                        if _is_move(node) and _receiver(node).split("[")[0] in fresh:
                            yield _WrittenCall(source, node, "", "to")


def _sources(script: Script) -> list[SourceFile]:
    """Returns the script's files, the one that runs first at the start."""
    first = Path(os.path.realpath(script.file()))
    paths = [first, *sorted(path for path in own_code(script) if path != first)]
    return [SourceFile(path, _name_of(path, script.folder())) for path in paths]


def _name_of(path: Path, folder: Path) -> str:
    """Returns a file's name from where the person is, or else from the script's folder."""
    for root in (Path.cwd().resolve(), folder):
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return path.name


def _imports(tree: ast.Module) -> dict[str, str]:
    """Returns the dotted names of what a file imports, by the names under which it has them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                found[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _calls(source: SourceFile) -> Iterator[_WrittenCall]:
    imports = _imports(source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            first, *others = _code(node.func).split(".")
            parts = [*imports.get(first, first).split("."), *others]
            yield _WrittenCall(source, node, parts[0], parts[-1])


def _code(node: ast.AST) -> str:
    """Returns a node as code; nothing for one that nests deeper than Python walks."""
    try:
        return ast.unparse(node)
    except RecursionError:
        return ""


def _is_move(node: Any) -> TypeGuard[ast.Call]:
    """Checks whether a node is ``something.to(device)``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "to"
        and len(node.args) == 1
        and "device" in _code(node.args[0]).lower()
    )


def _constant(node: ast.expr) -> Any:
    """Returns the value of a literal; None of anything else."""
    return node.value if isinstance(node, ast.Constant) else None


def _receiver(call: ast.Call) -> str:
    """Returns the code of the object whose method is called."""
    return _code(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _taken_model(call: ast.Call) -> list[str]:
    named = [keyword.value for keyword in call.keywords if keyword.arg == "model"]
    return [_code(node) for node in (named or call.args)[:1]]


def _owners_of_parameters(call: ast.Call) -> list[str]:
    """Returns the code of what the arguments of a call are the parameters of; not of a module that
    makes its own optimizer."""
    inside = [node for node in ast.walk(call) if isinstance(node, ast.Call)]
    names = [_receiver(node) for node in inside if getattr(node.func, "attr", "") in _PARAMETERS]
    return [name for name in names if name != "self"]
