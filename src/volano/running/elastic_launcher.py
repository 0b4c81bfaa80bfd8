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
import threading
import uuid
from typing import Any

from volano.errors import UsageError
from volano.running.processes import tells_of_lost_rank
from volano.training import RunFolder

# The step in flight, an evaluation and a save may take so long before torchrun ends the ranks.
_SECONDS_TO_STOP = 600


def main(path: str, num_processes: int, max_restarts: int) -> int:
    """Returns the exit code; what went wrong stands in ``run.json``."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Run.json and the ranks say it better.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
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
    )
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        elastic_launch(config, sys.executable)("-m", "volano.running.rank_main", path)
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
    it went."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _reason(failures: dict[int, Any], max_restarts: int) -> str:
    """Returns the error of the rank because of which the others failed."""
    rank, failure = min(
        failures.items(), key=lambda item: (_is_consequence(item[1]), item[1].timestamp)
    )
    text = _last_words(failure)
    if text is None:
        text = (
            f"ended by {failure.signal_name()}"
            if failure.exitcode < 0
            else f"exit code {failure.exitcode}"
        )
    return f"rank {rank}: {text}" + (
        f" (started again {max_restarts} times)" if max_restarts else ""
    )


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
