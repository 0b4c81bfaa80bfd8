"""Finds spikes of the loss: steps whose loss is far above those before."""

from __future__ import annotations

import statistics

# A step's loss is a mean over a batch, whose spread the median absolute deviation tells without
# being moved by the spikes themselves (Hampel 1974); 1.4826 makes it a standard deviation for a
# normal distribution. Losses of batches have a longer tail to the right: 10 of these lie beyond
# what such tails were seen to reach in healthy runs, and a divergence passes them at once. While
# the loss falls, the median lies above it, which can only hide a spike.
_NUM_DEVIATIONS = 10.0
_WINDOW, _FEWEST = 200, 20
# Below this share of the median nothing is far: a loss that has come to rest has nearly no
# deviation.
_LEAST_SHARE = 0.25


class SpikeFinder:
    """Looks at the losses of steps, a block at a time; its window is part of a checkpoint."""

    def __init__(self) -> None:
        self._window: list[float] = []

    def look(self, losses: list[float]) -> bool:
        """Returns whether one of a block of losses is a spike against the ``_WINDOW`` before the
        block, then adds them to the window."""
        is_spike = False
        if len(self._window) >= _FEWEST:
            middle = statistics.median(self._window)
            deviation = 1.4826 * statistics.median(abs(loss - middle) for loss in self._window)
            limit = middle + max(_NUM_DEVIATIONS * deviation, _LEAST_SHARE * abs(middle))
            is_spike = max(losses) > limit
        self._window = [*self._window, *losses][-_WINDOW:]
        return is_spike

    def state_dict(self) -> list[float]:
        """The window."""
        return list(self._window)

    def load_state_dict(self, state: list[float]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._window = list(state)
