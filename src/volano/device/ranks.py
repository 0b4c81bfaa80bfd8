"""Ranks: the processes that train one model together, as torchrun starts them.

What one process knows (which folder, whether a person asked to stop) reaches the others by the
methods here. Nothing is pickled: texts travel as bytes.
"""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from volano.errors import RunError, UsageError


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among ``world_size`` processes; every method does nothing where it is
    the only one.

    Attributes:
        rank: from 0 to ``world_size - 1``, over all machines.
        world_size: processes that train together.
        local_rank: rank among those of this machine; the index of its accelerator.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """What torchrun says in RANK, WORLD_SIZE and LOCAL_RANK; a single process without it.

        Raises:
            UsageError: one of them is missing or no number.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            rank, world_size, local_rank = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"Processes that train together know {', '.join(names)}",
                got=f"{error}",
                remedy="Start with torchrun",
            ) from error
        return cls(rank=rank, world_size=world_size, local_rank=local_rank)

    @property
    def is_first(self) -> bool:
        """Whether this process prints, and writes the run's folder."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """Whether there is anybody to talk to."""
        return self.world_size > 1

    def join(self) -> Ranks:
        """Lets the ranks talk, until the process ends. A process group that a person's script has
        made is used.

        A second group in one process would find the addresses of the first in torchrun's store,
        hence one for all runs.

        Raises:
            RunError: the others were not reached.
        """
        if not self.are_several or dist.is_initialized():
            return self
        if torch.accelerator.is_available() and self.local_rank < torch.accelerator.device_count():
            torch.accelerator.set_device_index(self.local_rank)
        try:
            # For each device torch's own choice of a backend: host tensors can be sent besides.
            dist.init_process_group(**self._meeting_place())
        except (RuntimeError, ValueError) as error:
            raise RunError(
                "The ranks of a run reach each other", got=f"rank {self.rank}: {error}"
            ) from error
        atexit.register(_leave)
        return self

    def _meeting_place(self) -> dict[str, Any]:
        # torchrun's store outlives a restart, and so do the addresses of the processes that died:
        # they are told apart by the number of the start (pytorch/pytorch#135712, #167288).
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return {}
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, self.world_size, is_master=False)
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return {
            "store": dist.PrefixStore(f"volano/start-{start}", store),
            "rank": self.rank,
            "world_size": self.world_size,
        }

    def add_up(self, tensor: Tensor) -> Tensor:
        """``tensor``, in place, summed over the ranks."""
        if self.are_several:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, values: Sequence[float]) -> list[float]:
        """Of each number the largest over the ranks."""
        if not self.are_several:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def tell(self, text: str | None = None) -> str:
        """The text that the first rank gives; the others wait for it and need not give one."""
        if not self.are_several:
            return text or ""
        content = (
            torch.frombuffer(bytearray((text or "").encode()), dtype=torch.uint8)
            if text
            else torch.empty(0)
        )
        length = torch.tensor([content.numel()])
        dist.broadcast(length, src=0)
        if not self.is_first:
            content = torch.empty(int(length), dtype=torch.uint8)
        if int(length):
            dist.broadcast(content, src=0)
        return bytes(content.tolist()).decode() if int(length) else ""

    def agreement(self) -> Agreement:
        """See :class:`Agreement`."""
        return Agreement(self)


class Agreement:
    """Flags that any rank may raise and that all ranks see at the same step, without waiting.

    With several ranks an answer is that of the call before: the exchange goes on beside the step.
    Call it equally often on every rank, and :meth:`finish` at the end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pending: tuple[Any, Tensor] | None = None

    def __call__(self, *flags: bool) -> list[bool]:
        """Whether each flag was raised on any rank."""
        if not self._ranks.are_several:
            return list(flags)
        answer = self.finish() or [False] * len(flags)
        tensor = torch.tensor(flags, dtype=torch.uint8)
        self._pending = (dist.all_reduce(tensor, op=dist.ReduceOp.MAX, async_op=True), tensor)
        return answer

    def finish(self) -> list[bool]:
        """The answer to the last call; nothing is in flight afterwards."""
        if self._pending is None:
            return []
        work, tensor = self._pending
        self._pending = None
        work.wait()
        return [bool(value) for value in tensor.tolist()]


def _leave() -> None:
    gc.collect()  # sharded parameters hold the group's threads
    if dist.is_initialized():
        dist.destroy_process_group()
