"""Runs a script in a child process and reads what was seen there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.errors import RunError, ScriptError, UsageError
from volano.record.format import signal_name
from volano.script.plan import ScriptPlan
from volano.script.remembered import Script, num_ranks
from volano.thread_waits import environment_as_given, shorten_waits

# A child that was told to stop and has written what it saw may still save things: so long.
_END_SECONDS = 10.0
_POLL_SECONDS = 0.05
_LONGEST_LINE = 200  # columns of what a plan has broken


@dataclass(frozen=True, kw_only=True)
class WatchedRun:
    """A run of a script, and what was seen of it.

    Attributes:
        record: what the child wrote, see ``script/watch/child.py``.
        gradients: path of the first gradients and updates.
        startup_seconds: seconds from the start of the process to the end of its watching, less
            the measured ones.
    """

    record: dict[str, Any]
    gradients: Path
    startup_seconds: float

    @property
    def step_seconds(self) -> float:
        """The seconds of a step."""
        return self.record["free_step_seconds"] or self.record["step_seconds"]


class ScriptRunner:
    """The runner of one script's children, and the temporary folder in which they meet.

    Args:
        script: the script and its arguments.
        scratch: folders and files in the current folder of which each child gets a copy.
        is_verbose: whether what the script prints is shown, on standard error.
        is_quiet: whether what a script that fails has written there is not shown either.

    Raises:
        UsageError: when it is made, if there is no such script, or it is a notebook.
    """

    def __init__(
        self,
        script: Script,
        *,
        scratch: Sequence[str] = (),
        is_verbose: bool = False,
        is_quiet: bool = False,
    ) -> None:
        script.file()
        for name in scratch:
            parts = Path(name).parts
            if Path(name).is_absolute() or ".." in parts or not parts:
                raise UsageError(
                    "`scratch` must name something in the current folder", got=repr(name)
                )
        self.script, self._scratch = script, scratch
        self._is_verbose, self._is_quiet = is_verbose, is_quiet
        self._folder = Path(tempfile.mkdtemp(prefix="volano-script-"))
        self._number = 0

    def __enter__(self) -> ScriptRunner:
        return self

    def __exit__(self, *_: Any) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        plan: ScriptPlan,
        *,
        limits: dict[str, float],
        seconds: float,
        is_reference: bool = False,
    ) -> WatchedRun:
        """Runs the script under a plan until enough steps were seen.

        Args:
            plan: an empty one is the script as it is.
            limits: see :class:`~volano.script.watch.step_recorder.ObservationLimits`.
            seconds: the most that the child may take.
            is_reference: whether models compute in float64.

        Raises:
            ScriptError: it fails by itself, or does nothing that can be measured.
        """
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        job = {
            "target": self.script.target, "is_module": self.script.is_module,
            "arguments": list(self.script.arguments),
            "plan": plan.settings() and plan.to_json(), "is_reference": is_reference,
            "limits": {**limits, "end_seconds": max(0.5 * seconds, seconds - _END_SECONDS)},
            "limit_seconds": max(1.0, seconds - 0.5),
            "result": str(folder / "result.json"), "where": str(folder / "where.txt"),
            "gradients": str(folder / "first.safetensors"),
        }  # fmt: skip
        started = time.monotonic()
        code = self._run_child(folder, job, plan, seconds)
        taken = time.monotonic() - started
        record = _read(folder / "result.json")
        # What a plan breaks is no mistake of the person's: the last line of it is enough.
        is_own = plan.is_empty and not is_reference and not self._is_quiet
        errors = folder / "errors.txt" if is_own else None
        self._check(record, code, folder, seconds, errors)
        assert record is not None
        measured = sum(record["each_step_seconds"]) + record["evaluation_seconds"]
        return WatchedRun(
            record=record,
            gradients=folder / "first.safetensors",
            startup_seconds=max(0.0, taken - measured),
        )

    def _run_child(
        self, folder: Path, job: dict[str, Any], plan: ScriptPlan, seconds: float
    ) -> int | None:
        """Returns the exit code; None for a child that took too long."""
        path = folder / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        # Sets have the same order in each child, unless the person has said how.
        environment = {"PYTHONHASHSEED": "0", **environment_as_given()}
        if plan.spin_count is not None:
            shorten_waits(environment, plan.spin_count)
        here = self._working_copy(folder)
        with contextlib.ExitStack() as stack:
            errors: Any = None
            if not self._is_verbose:
                errors = stack.enter_context((folder / "errors.txt").open("wb"))
            process = subprocess.Popen(
                python_command("volano.script.watch.child", str(path)),
                cwd=here, env=environment, stdin=subprocess.DEVNULL,
                stdout=sys.stderr if self._is_verbose else subprocess.DEVNULL,
                stderr=errors, start_new_session=True,
            )  # fmt: skip
            stack.callback(_end_group, process)
            return _wait(process, folder / "result.json", seconds)

    def _working_copy(self, folder: Path) -> Path:
        """Returns the folder to run in: the current one; or one that looks like it, with copies of
        what the script writes."""
        here = Path.cwd()
        if not self._scratch:
            return here
        place = folder / "scratch"
        _link_all(here, place, [Path(name) for name in self._scratch])
        return place

    def _check(
        self, record: dict[str, Any] | None, code: int | None, folder: Path, seconds: float,
        errors: Path | None,
    ) -> None:  # fmt: skip
        name = self.script.words
        if record is None and code is not None:
            _show(errors)
            end = f"ended by {signal_name(-code)}" if code < 0 else f"exit code {code}"
            shell_code = 128 - code if code < 0 else code or 1
            raise ScriptError(f"{name} must run by itself", got=end, exit_code=shell_code)
        if record is None:
            raise ScriptError(
                f"{name} must step an optimizer within `seconds`",
                got=f"none in {seconds:.0f} s{_where(folder / 'where.txt')}",
                remedy="Give it longer, or arguments with which it begins sooner",
            )
        num_steps = record.get("num_steps", 0) + record.get("num_warmup_steps", 0)
        if record["reads_input"] and (record["status"] == "failed" or not num_steps):
            _show(errors)
            raise ScriptError(
                f"{name} must ask for nothing while it is explained",
                got="a read of its standard input, which is empty then",
                remedy="Give what it asks for as arguments, or as a file",
            )
        if record["status"] == "failed":
            _show(errors)
            hosts = ", ".join(record["hosts"][:3])
            hint = f"It looked for {hosts} in the network: is there one here?" if hosts else None
            raise ScriptError(
                f"{name} must run by itself", remedy=hint,
                got=f"exit code {code}" + ("" if errors else _last_line(folder / "errors.txt")),
                exit_code=code or 1,
            )  # fmt: skip
        self._check_steps(record)

    def _check_steps(self, record: dict[str, Any]) -> None:
        name, hint = self.script.words, None
        if record["starts_processes"]:
            hint = "It has started processes of its own; training is seen in the first one only"
        if not record.get("has_torch"):
            raise ScriptError(f"{name} must train with torch", got="no import of it", remedy=hint)
        num_steps = record["num_steps"] + record["num_warmup_steps"]
        if not num_steps:
            num_backward = record.get("num_backward")
            found = f"{num_backward} backward passes" if num_backward else "its end"
            if num_backward and hint is None:
                hint = "If it steps an optimizer later, give it longer"
            raise ScriptError(
                f"{name} must step an optimizer of torch's", got=f"{found} without one", remedy=hint
            )
        if not record["num_steps"]:
            raise ScriptError(
                f"{name} must make some steps after the first, which are slower than others",
                got=f"its end after {num_steps}",
                remedy="Give it arguments with which it trains for longer",
            )


def python_command(module: str, *arguments: str) -> list[str]:
    """Returns a command that calls ``main`` of one of our modules elsewhere, with the path of
    ``python -m``. What it imports does not come from the current folder, where a file may have the
    name of one of ours."""
    start = (
        "import sys; path = [*sys.path]; "
        "sys.path[:] = [*path[not sys.flags.safe_path :], sys.argv.pop()]; "
        f"from {module} import main; sys.path[:] = path; main()"
    )
    return [sys.executable, "-c", start, *arguments, str(Path(__file__).parents[3])]


def _last_line(path: Path) -> str:
    """Returns the error with which a child ended, behind a colon; nothing if it wrote none."""
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
        return f": {lines[-1][:_LONGEST_LINE]}" if lines and lines[-1] else ""
    return ""


def _show(errors: Path | None) -> None:
    if errors is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(errors.read_text(errors="replace"))


def _wait(process: subprocess.Popen[bytes], result: Path, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    seen = False
    while process.poll() is None:
        if not seen and result.exists():
            seen = True
            deadline = min(deadline, time.monotonic() + _END_SECONDS)
        if time.monotonic() > deadline:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)
    return process.returncode


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a child and all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _link_all(source: Path, target: Path, copied: list[Path]) -> None:
    """Makes a folder that looks like another: links, but copies of the named parts."""
    target.mkdir()
    for entry in source.iterdir():
        inside = [path.relative_to(entry.name) for path in copied if path.parts[0] == entry.name]
        if not inside:
            (target / entry.name).symlink_to(entry)
        elif any(not path.parts for path in inside):
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, target / entry.name)
        else:
            _link_all(entry, target / entry.name, inside)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _where(path: Path) -> str:
    """Returns where a script was when its time was over, of what faulthandler wrote."""
    here = str(Path.cwd())
    with contextlib.suppress(OSError):
        frames = re.findall(r'File "(.+?)", line (\d+)', path.read_text(errors="replace"))
        for file, line in frames:
            if "site-packages" not in file and file.startswith(here):
                return f"; it was at {os.path.relpath(file, here)}:{line}"
    return ""


def check_single_process() -> None:
    """Raises RunError under torchrun: ranks wait for each other, and each would explain alone."""
    if num_ranks() > 1:
        raise RunError(
            "A script must be explained in one process",
            got=f"WORLD_SIZE={os.environ['WORLD_SIZE']}",
            remedy="Start `volano explain` without torchrun",
        )
