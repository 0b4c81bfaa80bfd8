"""The hooks in torch through which a script is watched: the outermost call of a module, backward,
an optimizer's step, a loader's next batch, copies between devices, reads by the host.

They change no number and draw nothing. What torch compiles is traced as if they were not there.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader, IterableDataset

from volano.device.torch_private import is_compiled
from volano.script.loaders import outline_of
from volano.script.optimizers import after_closure
from volano.script.watch.call_sites import CallSites
from volano.script.watch.first_steps import FirstSteps
from volano.script.watch.step_recorder import EVALUATION, CodeLines, StepRecorder

# Methods of a tensor that hand its values to the host.
_READS = (
    "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__repr__", "__format__",
)  # fmt: skip
# After so many attempts to stop a script that catches everything, its process is ended.
_MOST_ATTEMPTS = 3
_MOST_MODELS = 3  # that are named


class EnoughStepsError(BaseException):
    """The end of a script of which enough was seen. No ``except Exception`` catches it."""


class TorchHooks:
    """The hooks of one process.

    Args:
        recorder: the clock that they call.
        sites: the lookup of the person's lines.
        end_process: called if the script catches :class:`EnoughStepsError` again and again, or
            trains in a thread, which that would not end.
        enough: called when enough was seen, before the script hears of it: what it does then (saves
            a model, draws its history) may take long or fail.

    Attributes:
        first_steps: losses and gradients of the first steps.
        num_backward: backward passes so far.
        facts: what the script does by itself, by name.
    """

    def __init__(
        self,
        recorder: StepRecorder,
        sites: CallSites,
        end_process: Callable[[], Any],
        enough: Callable[[], Any] = lambda: None,
    ) -> None:
        self._recorder, self._here, self._sites = recorder, sites.here, sites
        self._end_process, self._enough = end_process, enough
        self._attempts = 0
        self._is_reading = self._is_in_backward = False
        self._loaders: dict[int, dict[str, Any]] = {}
        self._optimizers: dict[int, dict[str, Any]] = {}
        # Loaders and their iterators, by the loader's number: an id is given anew.
        self._number_of: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._datasets: dict[int, tuple[Any, int]] = {}  # that are looked at
        self._models: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._stepping: int | None = None
        self._patched: set[type] = set()
        self._undo: list[Callable[[], None]] = []
        self.num_backward = 0
        self.first_steps = FirstSteps()
        self.facts: dict[str, Any] = {"transfers": {}}

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Returns a context in which torch is watched."""
        try:
            self._install()
            yield
        finally:
            for undo in reversed(self._undo):
                undo()
            self._undo.clear()

    def described(self) -> dict[str, Any]:
        """Returns what is known of the script, JSON."""
        trained = self._recorder.training_loaders
        loaders: list[dict[str, Any]] = []
        for number, about in self._loaders.items():
            # A loop that makes one for each epoch has many that are alike.
            if number in trained and about not in loaders:
                loaders.append(about)
        unsplit = [about["made"] for about in self._loaders.values() if about["is_stream"]]
        return {
            **self.facts,
            "loaders": loaders,
            "optimizers": [*self._optimizers.values()],
            "streams": [place for place in unsplit if place is not None],
        }

    def _install(self) -> None:
        self._wrap(nn.Module, "__call__", self._forward)
        self._wrap(torch.autograd, "backward", self._backward)
        self._wrap(torch.autograd, "grad", self._backward)
        self._wrap(Tensor, "backward", self._backward)
        self._wrap(DataLoader, "__init__", self._loader_made)
        self._wrap(DataLoader, "__iter__", self._loader_begun)
        for name in _READS:
            self._wrap(Tensor, name, self._read)
        accelerator = torch.accelerator.current_accelerator()
        # A device has a method of its name.
        for name in ("to", "cpu", *([] if accelerator is None else [accelerator.type])):
            if hasattr(Tensor, name):
                self._wrap(Tensor, name, self._copy)
        self._undo.append(register_optimizer_step_pre_hook(self._before_step).remove)
        self._undo.append(register_optimizer_step_post_hook(self._after_step).remove)

    def _wrap(self, owner: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
        is_own = name in vars(owner)
        original = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(wrapped(original)))
        self._undo.append(
            functools.partial(setattr, owner, name, original)
            if is_own
            else functools.partial(delattr, owner, name)
        )

    # ---- modules and backward

    def _forward(self, original: Any) -> Any:
        recorder, is_compiling = self._recorder, torch.compiler.is_compiling

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if is_compiling():
                return original(module, *args, **kwargs)
            has_gradient = torch.is_grad_enabled()
            is_forward = has_gradient or module.training or module not in self._models
            # A teacher, which is never trained, is a part of the steps.
            part = "forward" if is_forward else EVALUATION
            if not recorder.takes(part):
                return original(module, *args, **kwargs)
            recorder.enter(part, self._here())
            try:
                result = original(module, *args, **kwargs)
                if has_gradient and module not in self._models:
                    self._models.add(module)  # by now a lazy one has its shapes
                    self._note_model(_facts_of_model(module))
                return result
            finally:
                recorder.leave()

        return call

    def _note_model(self, found: dict[str, Any]) -> None:
        """Takes what an outermost module does by itself. A model whose methods are called, as
        Lightning does, has several."""
        known = self.facts
        if "model" not in known or not found:
            known |= found
            return
        planes = [facts for facts in (known, found) if facts["has_convolutions"]]
        known["is_channels_last"] = bool(planes) and all(f["is_channels_last"] for f in planes)
        known["model"] = ", ".join([*known["model"].split(", "), found["model"]][:_MOST_MODELS])
        known["num_parameters"] += found["num_parameters"]
        for name in ("has_convolutions", "is_compiled", "autocast", "is_training"):
            known[name] = known[name] or found[name]

    def _backward(self, original: Any) -> Any:
        recorder = self._recorder

        def backward(*args: Any, **kwargs: Any) -> Any:
            # Tensor.backward calls autograd.backward.
            if self._is_in_backward or not recorder.takes("backward"):
                return original(*args, **kwargs)
            if args and isinstance(args[0], Tensor) and args[0].numel() == 1:
                self.first_steps.note_loss(args[0])
            self._is_in_backward = True
            recorder.enter("backward", self._here())
            try:
                result = original(*args, **kwargs)
            finally:
                recorder.leave()
                self._is_in_backward = False
            self.num_backward += 1
            if not recorder.num_steps and recorder.is_late():
                self._stop()  # of one that updates its weights by hand there is no end to wait for
            return result

        return backward

    # ---- optimizers

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        recorder = self._recorder
        if not recorder.num_steps:
            recorder.watch_this_thread()
        if not recorder.takes("optimizer"):
            return None
        key = id(optimizer)
        place = self._here()
        if key not in self._optimizers:
            self._optimizers[key] = {
                "class": type(optimizer).__name__,
                "fused": bool(optimizer.defaults.get("fused")),
                "takes_fused": "fused" in optimizer.defaults,
            }
            self._note_device(optimizer)
        replaced = None
        # Of a second optimizer too, as a GAN has it; by then the first has made a step.
        if recorder.num_steps <= 1:
            note = functools.partial(self.first_steps.note_gradients, key, optimizer)
            replaced = after_closure(args, kwargs, note)
            if replaced is None:
                note()
        self._stepping = key
        recorder.enter("optimizer", place)
        return replaced

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        del args, kwargs
        recorder = self._recorder
        if recorder.is_complete:
            self._stop()
        # An optimizer may make its step by another's, within it.
        if not recorder.is_watching() or self._stepping not in (id(optimizer), None):
            return
        self._stepping = None
        recorder.leave_all("optimizer")
        self.first_steps.note_update(id(optimizer), optimizer)
        recorder.end_step(id(optimizer))
        if recorder.is_complete:
            self._stop()

    def _stop(self) -> None:
        if not self._attempts:
            self._enough()
        self._attempts += 1
        in_main = threading.current_thread() is threading.main_thread()
        if self._attempts > _MOST_ATTEMPTS or not in_main:
            self._end_process()
        raise EnoughStepsError

    def _note_device(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                device = parameter.device
                self.facts.setdefault("device", str(device))
                if device.type != "cpu" and self._recorder.can_synchronize is None:
                    self._recorder.can_synchronize = functools.partial(
                        torch.accelerator.synchronize, device
                    )
                return

    # ---- loaders

    def _loader_made(self, original: Any) -> Any:
        def init(loader: Any, *args: Any, **kwargs: Any) -> None:
            original(loader, *args, **kwargs)
            self._note_loader(loader, self._here())

        return init

    def _note_loader(self, loader: Any, made: CodeLines | None) -> int:
        """Returns a loader's number; takes where it is made if it is new."""
        number = self._number_of.get(loader)
        if number is None:
            number = self._number_of[loader] = len(self._loaders)
            self._loaders[number] = {
                "made": None if made is None else made[:2],
                "is_stream": isinstance(getattr(loader, "dataset", None), IterableDataset),
            }
        return number

    def _loader_begun(self, original: Any) -> Any:
        recorder = self._recorder

        def begin(loader: Any) -> Any:
            number = self._note_loader(loader, None)
            about = self._loaders[number]
            about.update(self._facts_of(loader))
            if "counts_reads" not in about and not about["num_workers"]:
                self._datasets[number] = getattr(loader, "dataset", None), 0
                about["counts_reads"] = False
            if not recorder.takes("data"):
                iterator = original(loader)
            else:
                recorder.enter("data", self._here())
                recorder.read_from(number)
                try:
                    iterator = original(loader)
                finally:
                    recorder.leave()
            with contextlib.suppress(TypeError):  # a generator of a subclass's
                self._watch(iterator, number)
            return iterator

        return begin

    def _watch(self, iterator: Any, number: int) -> None:
        """Watches the batches of a loader's iterator; its class is private to torch."""
        self._number_of[iterator] = number
        kind = type(iterator)
        if kind in self._patched or not hasattr(kind, "__next__"):
            return
        self._patched.add(kind)
        self._wrap(kind, "__next__", self._fetch)

    def _fetch(self, original: Any) -> Any:
        recorder = self._recorder

        def fetch(iterator: Any) -> Any:
            if not recorder.takes("data"):
                return original(iterator)
            recorder.enter("data", self._here())
            number = self._number_of.get(iterator)
            try:
                if number is None:
                    return original(iterator)
                recorder.read_from(number)
                with self._looked_at(number):
                    return original(iterator)
            finally:
                recorder.leave()

        return fetch

    @contextlib.contextmanager
    def _looked_at(self, number: int) -> Iterator[None]:
        """Returns a context for a fetch. The second one shows whether the dataset counts what is
        read of it, which each worker would do by itself; at the first one many open their files."""
        dataset, num_fetches = self._datasets.pop(number, (None, 0))
        if dataset is not None and num_fetches:
            before = outline_of(dataset)
            yield
            self._loaders[number]["counts_reads"] = outline_of(dataset) != before
            return
        if dataset is not None:
            self._datasets[number] = dataset, 1
        yield

    def _facts_of(self, loader: Any) -> dict[str, Any]:
        names = (
            "num_workers", "pin_memory", "prefetch_factor", "persistent_workers", "batch_size"
        )  # fmt: skip
        kind = type(getattr(loader, "dataset", None))
        reader = getattr(kind, "__getitem__", None) or getattr(kind, "__iter__", None)
        place = None if reader is None else self._sites.of_code(reader)
        return {
            **{name: getattr(loader, name, None) for name in names},
            "dataset": kind.__name__,
            "dataset_place": None if place is None else place[:2],
        }

    # ---- copies and reads

    def _copy(self, original: Any) -> Any:
        recorder = self._recorder

        def copy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if not recorder.takes("transfer") or torch.compiler.is_compiling():
                return original(tensor, *args, **kwargs)
            started = recorder.now()
            result = original(tensor, *args, **kwargs)
            if result.device.type != tensor.device.type and recorder.takes("transfer"):
                self._note_copy(tensor, result, started, kwargs)
            return result

        return copy

    def _note_copy(
        self, tensor: Tensor, result: Tensor, started: float, kwargs: dict[str, Any]
    ) -> None:
        place = self._here()
        is_read = result.device.type == "cpu"
        self._recorder.span("read" if is_read else "transfer", started, place)
        if not is_read and place is not None:
            self.facts["transfers"][f"{place[0]}:{place[1]}"] = {
                "is_pinned": tensor.is_pinned(),
                "non_blocking": bool(kwargs.get("non_blocking", False)),
            }

    def _read(self, original: Any) -> Any:
        recorder = self._recorder

        def read(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if (
                self._is_reading
                or torch.compiler.is_compiling()
                or not recorder.takes("read")
                # A step counter of an optimizer, which lies on the host: nothing waits for it.
                or (recorder.is_in("optimizer") and tensor.device.type == "cpu")
            ):
                return original(tensor, *args, **kwargs)
            self._is_reading = True
            started = recorder.now()
            try:
                return original(tensor, *args, **kwargs)
            finally:
                self._is_reading = False
                recorder.span("read", started, self._here())

        return read


def _facts_of_model(module: nn.Module) -> dict[str, Any]:
    """Returns what the outermost module does by itself; nothing for one without parameters, as a
    loss."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        return {}
    kind = parameters[0].device.type
    is_autocast = torch.is_autocast_enabled(kind)
    planes = [parameter for parameter in parameters if parameter.dim() == 4]
    return {
        "model": type(getattr(module, "_orig_mod", module)).__name__,
        "num_parameters": sum(parameter.numel() for parameter in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch."),
        "is_compiled": is_compiled(module),
        "autocast": str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
        if is_autocast
        else None,
        "has_convolutions": bool(planes),
        "is_channels_last": bool(planes)
        and all(plane.is_contiguous(memory_format=torch.channels_last) for plane in planes)
        and not all(plane.is_contiguous() for plane in planes),  # of one channel it is both
        "is_training": module.training,
        "threads": torch.get_num_threads(),
    }
