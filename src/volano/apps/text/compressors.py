"""Measures the baselines of bits per byte: general compressors on the held-out text after the
training text."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from volano.device.isolated import run_isolated
from volano.device.processes import start_method

# xz -9 looks back 64 MiB, bz2 900 kB. Compressing more of the training text would cost minutes for
# little.
MOST_TRAINING_BYTES = 16_000_000
_TIMEOUT = 600.0  # seconds

_XZ_PRESET = 9 | lzma.PRESET_EXTREME


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
            name: self._pool.submit(_bits, sizes, training, held) for name, sizes in _SIZES.items()
        }

    def result(self) -> dict[str, float]:
        """Returns ``{"xz": bits per byte, "bz2": bits per byte}``."""
        return {name: round(future.result(), 4) for name, future in self._futures.items()}

    def __enter__(self) -> CompressorFigures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _bits(sizes: _Sizes, training: bytes, held: bytes) -> float:
    alone, both = sizes(training, held)
    return 8 * (both - alone) / len(held)


def _xz_sizes(training: bytes, held: bytes) -> tuple[int, int]:
    """Returns the sizes of the compressed training text, and of both texts. It looks at the
    training text once: a copy of the process ends there, and this one goes on."""
    if start_method() != "fork":
        return len(_xz(training)), len(_xz(training + held))
    return run_isolated(_xz_sizes_by_fork, training, held, timeout=_TIMEOUT)


def _xz_sizes_by_fork(training: bytes, held: bytes) -> tuple[int, int]:
    compressor = lzma.LZMACompressor(preset=_XZ_PRESET)
    begun = len(compressor.compress(training))
    alone = run_isolated(lambda: len(compressor.flush()), timeout=_TIMEOUT)
    return begun + alone, begun + len(compressor.compress(held)) + len(compressor.flush())


def _xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=_XZ_PRESET)


def _bz2_sizes(training: bytes, held: bytes) -> tuple[int, int]:
    return len(bz2.compress(training)), len(bz2.compress(training + held))


_Sizes = Callable[[bytes, bytes], tuple[int, int]]
_SIZES: dict[str, _Sizes] = {"xz": _xz_sizes, "bz2": _bz2_sizes}
