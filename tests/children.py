"""Children of tests that are forked: they have loaded torch already, for which a new interpreter
takes many seconds."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

# Machines of tests are busy, and what ends by itself is not hurried: what takes longer hangs.
PATIENCE_SECONDS = 600.0


class Forked:
    """A forked process that calls ``function(*args)``; its standard output and error go to a file.

    It ends with exit code 0, or with 1 and a traceback in that file. A test waits for it.
    """

    def __init__(
        self,
        output: Path,
        function: Callable[..., Any],
        *args: Any,
        environment: dict[str, str] | None = None,
    ) -> None:
        import torch._dynamo  # noqa: F401 - an optimizer's first step loads it: here once, not in every child

        self.output = output
        self.output.touch()
        self.store: Any = None
        with warnings.catch_warnings():
            # Python warns of forking beside threads: theirs hold no lock that a child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _call(output, function, args, environment or {})
        self.code: int | None = None

    def is_running(self) -> bool:
        """Returns whether it has not ended yet."""
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code is None

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Returns the exit code, negative if a signal ended it; kills it if it takes longer than
        ``seconds``."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            else:
                time.sleep(0.01)
        assert self.code is not None
        return self.code


def _call(
    output: Path, function: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str]
) -> None:
    """Runs in the child, and never returns: what pytest has registered for its own end is not for a
    child to do."""
    code = 1
    try:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ.update(environment)
        torch.set_num_threads(1)
        try:
            function(*args)
            code = 0
        except BaseException:  # noqa: BLE001 - SystemExit too is told
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def as_command(folder: Path, *arguments: str) -> None:
    """What a forked child does: the command in that folder, whose exit code it leaves there in the
    file ``code``."""
    from volano.cli import commands, main

    commands.register(main.app)
    os.chdir(folder)
    # Pytest's own would not lead to the file.
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    (folder / "code").write_text(str(main.run([*arguments])))


def on_ranks(number: int, output: Path, function: Callable[..., Any], *args: Any) -> None:
    """Calls ``function(*args)`` in so many ranks, with what torchrun says in their environment.

    Raises:
        AssertionError: one of them failed; its traceback.
    """
    children = start_ranks(output, "rank", number, lambda _: (function, *args))
    try:
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            child.wait(0)
    assert not any(codes), "\n".join(child.output.read_text() for child in children)


def start_ranks(
    output: Path, name: str, number: int, call: Callable[[int], tuple[Any, ...]]
) -> list[Forked]:
    """Starts so many ranks, with what torchrun says in their environment; ``call`` gives the
    function and the arguments of each."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    children = []
    for rank in range(number):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
        own |= {"LOCAL_WORLD_SIZE": "1"}  # as if each had a machine of its own
        log = output / f"{name}-{rank}.log"
        children.append(Forked(log, _as_rank, *call(rank), environment=place | own))
    children[0].store = store  # it lives as long as they do
    return children


def _as_rank(function: Callable[..., Any], *args: Any) -> None:
    try:
        function(*args)
    finally:
        if dist.is_initialized():
            gc.collect()  # sharded parameters hold the group's threads
            dist.destroy_process_group()
