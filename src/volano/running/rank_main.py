"""A rank of a prepared run: ``python -m volano.running.rank_main RUN`` under torchrun's elastic
agent."""

from __future__ import annotations

import os
import sys
import threading
import time

from torch.distributed.elastic.multiprocessing.errors import record

from volano.device import Ranks
from volano.errors import in_words
from volano.record.format import for_terminal
from volano.running.processes import DEBUG, tells_of_lost_rank, work
from volano.terminal import unfailing
from volano.training import RunFolder, make_progress

_LOOK_SECONDS = 1.0


@record  # tells the agent what was raised
def main(path: str) -> None:
    """Trains to the end; only the first rank prints."""
    threading.Thread(target=_end_with_the_agent, args=(os.getppid(),), daemon=True).start()
    ranks = Ranks.from_environment().join()
    work(RunFolder.open(path), ranks, observer=make_progress() if ranks.is_first else None)


def _end_with_the_agent(agent: int) -> None:
    # A rank whose agent was killed would wait for ever for neighbours that are not started again.
    while os.getppid() == agent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:
        if DEBUG in os.environ:
            raise
        text = in_words(error)
        if tells_of_lost_rank(text):
            text = "another rank has gone"
        line = f"rank {Ranks.from_environment().rank}: {text.splitlines()[0]}"
        print(for_terminal(line), file=unfailing(sys.stderr))
        sys.exit(1)
