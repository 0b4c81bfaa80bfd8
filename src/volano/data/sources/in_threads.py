"""Does many things at a time: Pillow and FFmpeg decode, and files are read, without the
interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Returns the function of each item, in their order, by as many threads as there are cores. An
    error, or Ctrl-C, ends it: what has not begun by then is not done."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            return list(pool.map(function, items))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
