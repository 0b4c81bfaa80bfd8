"""Starts the ranks of a prepared run here: ``python -m volano.running.elastic_launcher RUN
PROCESSES MAX_RESTARTS``.

torchrun's elastic agent does it: it watches the ranks, ends all of them when one dies, and starts
them again as often as it may. Each continues from the run's last checkpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.running.processes import END_AT_ONCE, tells_of_lost_rank
from volano.training import RunFolder

# The step in flight, an evaluation and a save may take so long before torchrun ends the ranks.
_SECONDS_TO_STOP = 600


def main(path: str, num_processes: int, max_restarts: int) -> int:
    """Returns the exit code; what went wrong stands in ``run.json``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # until torch's agent has its own
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="volano-ranks-", ignore_cleanup_errors=True) as logs:
        return _launch(path, num_processes, max_restarts, logs)


def _launch(path: str, num_processes: int, max_restarts: int, logs: str) -> int:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # run.json and the ranks say it better
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=max_restarts,
        monitor_interval=0.2,
        shutdown_timeout=_SECONDS_TO_STOP,
        logs_specs=DefaultLogsSpecs(log_dir=logs),  # its own would stay in the temporary folder
    )
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "volano.running.rank_main", path)
    except ChildFailedError as error:
        folder = RunFolder.open(path)
        with contextlib.suppress(UsageError), folder.held():  # another process may have it by now
            if folder.read_json("run.json").get("status") not in ("finished", "stopped"):
                folder.update_run(status="failed", reason=_reason(error.failures, max_restarts))
        return 1
    except SignalException:  # it was asked to stop, and the ranks were
        return 1
    return 0


def _end_with_the_parent() -> None:
    """Asks the ranks to stop when the process at the other end of standard input is gone, however
    it went; ends them at once when that process says so."""
    # From the descriptor: a thread within the buffer of sys.stdin at the interpreter's end is a
    # fatal error.
    if os.read(0, 1) == END_AT_ONCE:
        for rank in _children():
            with contextlib.suppress(OSError):
                os.killpg(rank, signal.SIGKILL)  # the agent starts each in a session of its own
    os.kill(os.getpid(), signal.SIGTERM)


def _children() -> list[int]:
    """Returns the processes that this one has started, on a system that tells; elsewhere ranks see
    for themselves that it has gone."""
    lists = Path("/proc/self/task").glob("*/children")
    with contextlib.suppress(OSError):
        return [int(number) for file in lists for number in file.read_text().split()]
    return []


def _reason(failures: dict[int, Any], max_restarts: int) -> str:
    """Returns the error of the rank because of which the others failed."""
    rank, failure = min(
        failures.items(), key=lambda item: (_is_consequence(item[1]), item[1].timestamp)
    )
    was_killed = failure.exitcode < 0
    how = f"ended by {failure.signal_name()}" if was_killed else f"exit code {failure.exitcode}"
    again = f" (started again {max_restarts} times)" if max_restarts else ""
    return f"rank {rank}: {_last_words(failure) or how}{again}"


def _is_consequence(failure: Any) -> bool:
    # A rank whose neighbour has gone fails in the exchange with it, or is asked to end by the
    # agent.
    text = _last_words(failure)
    return failure.exitcode == -signal.SIGTERM if text is None else tells_of_lost_rank(text)


def _last_words(failure: Any) -> str | None:
    """The first line of the exception that ended a rank; None if it was killed before it could
    say anything."""
    message = failure.error_file_data.get("message")
    if isinstance(message, dict):
        message = message.get("message")
    if not isinstance(message, str) or message == "<NONE>":
        return None
    return next((line for line in message.splitlines() if line.strip()), None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
