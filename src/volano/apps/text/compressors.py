"""Measures the baselines of bits per byte: general compressors on the held-out text after the
training text."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

# xz -9 looks back 64 MiB, bz2 900 kB. Compressing more of the training text would cost minutes for
# little.
MOST_TRAINING_BYTES = 16_000_000

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
    """

    def __init__(self, training: bytes, held: bytes) -> None:
        # Both libraries work without the interpreter's lock.
        self._pool = ThreadPoolExecutor(max_workers=2)
        self._futures: dict[str, Future[float]] = {
            name: self._pool.submit(bits_after, compress, training, held)
            for name, compress in _COMPRESSORS.items()
        }

    def result(self) -> dict[str, float]:
        """Returns ``{"xz": bits per byte, "bz2": bits per byte}``."""
        return {name: round(future.result(), 4) for name, future in self._futures.items()}

    def __enter__(self) -> CompressorFigures:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def bits_after(compress: Callable[[bytes], bytes], training: bytes, held: bytes) -> float:
    """Returns the bits that ``compress`` needs for a byte of ``held`` behind ``training``."""
    return 8 * (len(compress(training + held)) - len(compress(training))) / len(held)
