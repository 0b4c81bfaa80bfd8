"""Measures the baselines of bits per byte: general compressors on the held-out text after the
training text."""

from __future__ import annotations

import bz2
import lzma
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

# xz -9 looks back 64 MiB, bz2 900 kB. Compressing more of the training text would cost minutes for
# little.
MOST_TRAINING_BYTES = 16_000_000
# The pace of xz is taken from so many bytes; of megabytes it is half as fast (docs/log.md).
_TIMED_BYTES, _SLOWDOWN = 2**18, 2.0

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "xz": lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
    "bz2": lambda content: bz2.compress(content, 9),
}


class CompressorFigures:
    """The bits per held-out byte: ``8 * (size(training + held) - size(training)) / len(held)``,
    where size is that of the compressed bytes, for xz (preset 9, extreme) and bz2 (level 9). They
    are computed in two threads while the process does other work; :meth:`result` waits for
    them. A context, so that no thread outlives it.

    Args:
        training: the end of the training text, at most ``MOST_TRAINING_BYTES``.
        held: the held-out text, at least one byte.
        seconds: the seconds that they may take, by the pace of xz here: they get less of the end
            of a longer training text. None is as long as it takes.

    Attributes:
        notices: how much of the training text they got, if that is less than all of
            ``num_training_bytes``.
    """

    def __init__(
        self, training: bytes, held: bytes, *, num_training_bytes: int, seconds: float | None = None
    ) -> None:
        if seconds is not None and len(training) > _TIMED_BYTES:
            room = int(seconds * _bytes_per_second(training[-_TIMED_BYTES:])) - len(held)
            training = training[-max(_TIMED_BYTES, room) :]
        self.notices: tuple[str, ...] = ()
        if len(training) < num_training_bytes:
            self.notices = (
                f"xz and bz2 were given the last {len(training):,} bytes of the training text",
            )
        # Both libraries work without the interpreter's lock. What takes longest comes first.
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._num_held_bytes = len(held)
        self._sizes: dict[str, list[Future[int]]] = {
            name: [
                self._pool.submit(_compressed_size, compress, content)
                for content in (training + held, training)
            ]
            for name, compress in _COMPRESSORS.items()
        }

    def result(self) -> dict[str, float]:
        """Returns ``{"xz": bits per byte, "bz2": bits per byte}``."""
        sizes = {name: [size.result() for size in both] for name, both in self._sizes.items()}
        return {
            name: round(8 * (whole - before) / self._num_held_bytes, 4)
            for name, (whole, before) in sizes.items()
        }

    def __enter__(self) -> CompressorFigures:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _compressed_size(compress: Callable[[bytes], bytes], content: bytes) -> int:
    return len(compress(content))


def _bytes_per_second(some: bytes) -> float:
    """Returns the bytes that xz compresses in a second when it has many of them."""
    mark = time.perf_counter()
    _COMPRESSORS["xz"](some)
    return len(some) / (_SLOWDOWN * (time.perf_counter() - mark))
