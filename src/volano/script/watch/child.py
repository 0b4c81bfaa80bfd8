"""The child process in which a script runs as ``python SCRIPT.py ARGS`` would run it, watched.

It reads what to do from a file, and writes what it saw into another. Torch is imported by the
script, not before it: until then it may set variables of the environment that torch reads.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import io
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from volano.script.main_program import after_import, pythons_own_modules, run_as_main
from volano.script.remembered import Script, machine

_SEED = 0  # for a script that sets none


class _EmptyInput(io.FileIO):
    """The standard input of a script that is watched, in which there is nothing.

    Attributes:
        is_read: whether the script has looked.
    """

    is_read = False

    def readinto(self, buffer: Any) -> int | None:
        """Implements :class:`io.RawIOBase`."""
        self.is_read = True
        return super().readinto(buffer)

    def readall(self) -> bytes:
        """Implements :class:`io.RawIOBase`."""
        self.is_read = True
        return super().readall()


class _Child:
    """A run of a script."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._context = contextlib.ExitStack()
        self._hooks: Any = None
        self._recorder: Any = None
        self._applied: Any = None
        self._input, self._starts_processes = _EmptyInput(0, closefd=False), False
        self._is_written, self._process = False, os.getpid()
        self._hosts: dict[str, None] = {}  # that were looked up in the network
        self._script = Script(
            target=job["target"], is_module=job["is_module"], arguments=tuple(job["arguments"])
        )
        # Before the script may change the folder.
        self._roots = [self._script.file().parent, self._script.folder(), Path.cwd()]

    def run(self) -> Any:
        """Runs the script. Returns that with which it would exit, and writes what was seen."""
        job = self._job
        sys.addaudithook(self._audit)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(self._input))
        random.seed(_SEED)
        after_import("numpy", _seed_numpy)
        after_import("multiprocessing.process", self._watch_processes)
        after_import("torch", self._torch_is_there)
        # No thread that `threading` lists, which a script may join; nor faulthandler's own, for
        # which a forked process would wait at its end.
        _thread.start_new_thread(_tell_where, (Path(job["where"]), job["limit_seconds"]))
        code, status = self._run_script()
        self._finish(status)
        return code

    def _run_script(self) -> tuple[Any, str]:
        try:
            run_as_main(self._script)
        except SystemExit as error:
            return error.code, "ended" if not error.code else "failed"
        except BaseException as error:  # noqa: BLE001 - reported as Python does
            if type(error).__name__ == "EnoughStepsError":
                return 0, "measured"
            sys.excepthook(type(error), error, error.__traceback__)
            return 1, "failed"
        return 0, "ended"

    def _torch_is_there(self) -> None:
        import torch

        torch.manual_seed(_SEED)
        from volano.script.watch.call_sites import CallSites
        from volano.script.watch.float64 import computed_in_float64
        from volano.script.watch.hooks import TorchHooks
        from volano.script.watch.step_recorder import ObservationLimits, StepRecorder

        job = self._job
        if job["plan"]:
            from volano.script.apply import applied
            from volano.script.plan import ScriptPlan

            self._applied = self._context.enter_context(applied(ScriptPlan.from_json(job["plan"])))
        if job["is_reference"]:
            self._context.enter_context(computed_in_float64())
        self._recorder = StepRecorder(ObservationLimits(**job["limits"]))
        sites = CallSites(self._roots)
        self._hooks = TorchHooks(
            self._recorder, sites, self._end_process, lambda: self._finish("measured")
        )
        self._context.enter_context(self._hooks.installed())
        os.register_at_fork(after_in_child=self._leave_to_itself)

    def _leave_to_itself(self) -> None:
        self._recorder.is_active = False

    def _audit(self, event: str, arguments: Any) -> None:
        if event == "socket.getaddrinfo" and arguments[0] is not None:
            self._hosts[str(arguments[0])] = None
        elif event in ("os.fork", "os.posix_spawn", "subprocess.Popen"):
            self._note_process()

    def _watch_processes(self) -> None:
        """Notes the processes of multiprocessing too: of spawned ones no event tells."""
        from multiprocessing.process import BaseProcess

        kind: Any = BaseProcess
        start = kind.start

        def noted(process: Any) -> None:
            self._note_process()
            start(process)

        kind.start = noted

    def _note_process(self) -> None:
        # Workers of a loader are no processes that train.
        is_loader = self._recorder is not None and self._recorder.is_in("data")
        self._starts_processes |= not is_loader

    def _end_process(self) -> NoReturn:
        self._finish("measured")
        os._exit(0)

    def _finish(self, status: str) -> None:
        """Writes what was seen, once; the file is there when it is whole. A process that the script
        has forked comes by too, and has seen nothing."""
        if self._is_written or os.getpid() != self._process:
            return
        self._is_written = True
        record: dict[str, Any] = {
            "status": status,
            "starts_processes": self._starts_processes,
            "reads_input": self._input.is_read,
            "hosts": [*self._hosts],
        }
        if self._recorder is not None:
            if status == "measured":
                self._recorder.is_active = False
            record |= self._recorder.to_json()
            record |= {"facts": self._hooks.described(), "has_torch": True}
            record |= {"num_backward": self._hooks.num_backward}
            first = self._hooks.first_steps
            with pythons_own_modules():
                about = self._facts_of_device()
            record |= {"losses": first.losses(), "draws": first.draws, **about}
            first.save(Path(self._job["gradients"]))
        if self._applied is not None:
            record |= {"deeds": self._applied.deeds, "left": self._applied.notices}
        path = Path(self._job["result"])
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record, default=_plain), encoding="utf-8")
        part.replace(path)

    def _facts_of_device(self) -> dict[str, Any]:
        """Returns the peak of the device's memory, for the CPU that of the process; and in which
        types it computes faster than in fp32."""
        from volano.device import Device
        from volano.errors import VolanoError

        device = Device(self._hooks.facts.get("device", "cpu"))
        precisions = []
        # fp16 needs its gradients scaled, and steps skipped: only where bf16 has no units.
        half = "bf16" if device.has_bf16_units else "fp16"
        for name in (half,) if device.is_cpu else ("tf32", half):
            with contextlib.suppress(VolanoError):
                device.check_precision(name)
                precisions.append(name)
        return {"peak_bytes": device.memory().peak, "precisions": precisions, "machine": machine()}


def main() -> None:
    """Runs the script that a job names, and ends with its exit code."""
    sys.exit(_Child(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))).run())


def _tell_where(path: Path, seconds: float) -> None:
    """Writes where the script is when its time is over."""
    time.sleep(seconds)
    with path.open("w") as where:
        faulthandler.dump_traceback(file=where)


def _plain(value: Any) -> Any:
    """Returns a setting of the script's as JSON has it: it may be NumPy's number, or anything."""
    return value.item() if hasattr(value, "item") else str(value)


def _seed_numpy() -> None:
    import numpy as np

    np.random.seed(_SEED)
