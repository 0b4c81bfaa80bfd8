"""The ranks: the processes that train one model together, as torchrun starts them.

A process shares what it knows (which folder, whether the user asked to stop) with the others by
these methods. Nothing is pickled: texts travel as bytes.
"""

from __future__ import annotations

import atexit
import datetime
import gc
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from volano.errors import RunError, UsageError

_STORE_SECONDS = 10.0  # within which torchrun's store answers


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """The place of this process among ``world_size`` processes; every method does nothing if it is
    the only one.

    Attributes:
        rank: number from 0 to ``world_size - 1``, over all machines.
        world_size: number of processes that train together.
        local_rank: rank among those of this machine; the index of its accelerator.
        per_node: number of ranks of each machine; None if that is not known.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    per_node: int | None = None

    @classmethod
    def from_environment(cls) -> Ranks:
        """Reads RANK, WORLD_SIZE and LOCAL_RANK as torchrun sets them; a single process if they are
        not set.

        Raises:
            UsageError: one of them is missing or not a number.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            rank, world_size, local_rank = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise UsageError(
                f"Processes that train together need {', '.join(names)}",
                got=f"{error}",
                remedy="Start with torchrun",
            ) from error
        told = os.environ.get("LOCAL_WORLD_SIZE", "")
        per_node = int(told) if told.isdecimal() else None
        return cls(rank=rank, world_size=world_size, local_rank=local_rank, per_node=per_node)

    @property
    def is_first(self) -> bool:
        """The answer whether this process prints, and writes the run's folder."""
        return self.rank == 0

    @property
    def are_several(self) -> bool:
        """The answer whether there are other processes."""
        return self.world_size > 1

    def join(self) -> Ranks:
        """Connects the ranks, until the process ends. A process group that the user's script has
        made is used.

        A second group in one process would find the addresses of the first in torchrun's store,
        hence one for all runs.

        Raises:
            RunError: the other ranks were not reached.
        """
        if not self.are_several or dist.is_initialized():
            return self
        if torch.accelerator.is_available() and self.local_rank < torch.accelerator.device_count():
            torch.accelerator.set_device_index(self.local_rank)
        try:
            # Torch's own choice of a backend for each device, so that host tensors can be sent too.
            dist.init_process_group(**self._meeting_place())
        except (RuntimeError, ValueError) as error:
            raise RunError(
                "The ranks of a run must reach each other", got=f"rank {self.rank}: {error}"
            ) from error
        atexit.register(_leave)
        return self

    def open_store(self, name: str) -> dist.Store:
        """Returns a part of torchrun's store, of this start of the ranks alone.

        Raises:
            RuntimeError: it is not reached.
        """
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(
            address, port, is_master=False, timeout=datetime.timedelta(seconds=_STORE_SECONDS)
        )
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return dist.PrefixStore(f"{name}/start-{start}", store)

    def _meeting_place(self) -> dict[str, Any]:
        # torchrun's store outlives a restart, and so do the addresses of the processes that died:
        # the number of the start tells them apart (pytorch/pytorch#135712, #167288).
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
        """Sums ``tensor`` over the ranks, in place."""
        if self.are_several:
            dist.all_reduce(tensor)
        return tensor

    def largest(self, values: Sequence[float]) -> list[float]:
        """Returns the largest of each number over the ranks."""
        if not self.are_several:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def tell(self, text: str | None = None) -> str:
        """Returns the text that the first rank gives; the others wait for it and need not give
        one."""
        if not self.are_several:
            return text or ""
        content = torch.empty(0)
        if text:
            content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        length = torch.tensor([content.numel()])
        dist.broadcast(length, src=0)
        if not self.is_first:
            content = torch.empty(int(length), dtype=torch.uint8)
        if int(length):
            dist.broadcast(content, src=0)
        return bytes(content.tolist()).decode() if int(length) else ""

    def union(self, texts: Sequence[str]) -> list[str]:
        """Returns the texts that any rank gives, each once, in an order that all ranks share."""
        found = dict.fromkeys(texts)
        if not self.are_several:
            return list(found)
        content = json.dumps(list(found)).encode()
        size = int(self.largest([len(content)])[0])
        parts = [torch.empty(size, dtype=torch.uint8) for _ in range(self.world_size)]
        padded = torch.frombuffer(bytearray(content.ljust(size)), dtype=torch.uint8)
        dist.all_gather(parts, padded)
        return list(dict.fromkeys(t for p in parts for t in json.loads(bytes(p.tolist()))))

    def agreement(self) -> Agreement:
        """Returns an :class:`Agreement`."""
        return Agreement(self)


class Agreement:
    """The flags that any rank may raise and that all ranks see at the same step, without waiting.

    With several ranks an answer belongs to the call before, because the exchange runs in parallel
    to the step. Call it equally often on every rank, and :meth:`finish` at the end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pending: tuple[Any, Tensor] | None = None

    def __call__(self, *flags: bool) -> list[bool]:
        """Returns whether each flag was raised on any rank."""
        if not self._ranks.are_several:
            return list(flags)
        answer = self.finish() or [False] * len(flags)
        tensor = torch.tensor(flags, dtype=torch.uint8)
        self._pending = (dist.all_reduce(tensor, op=dist.ReduceOp.MAX, async_op=True), tensor)
        return answer

    def finish(self) -> list[bool]:
        """Returns the answer to the last call; nothing is in flight afterwards."""
        if self._pending is None:
            return []
        work, tensor = self._pending
        self._pending = None
        work.wait()
        return [bool(value) for value in tensor.tolist()]


def _leave() -> None:
    gc.collect()  # sharded parameters hold on to the group's threads
    if dist.is_initialized():
        dist.destroy_process_group()
