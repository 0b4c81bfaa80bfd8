"""The default generators from which stochastic layers draw, and contexts that leave them alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch


class Generators:
    """The generators of a device and of the host.

    Attributes:
        torch_device: the device.
        is_cpu: whether it is the host.
    """

    torch_device: torch.device
    is_cpu: bool
    _module: Any

    @cached_property
    def seed(self) -> Callable[[int], Any]:
        """A function: ``seed(n)`` seeds the generator from which the device's stochastic layers
        draw; it costs microseconds."""
        if self.is_cpu:
            return torch.default_generator.manual_seed
        return self._module.manual_seed

    def generator(self) -> torch.Generator:
        """Returns a new generator on the device; on the host if the backend has none."""
        try:
            return torch.Generator(device=self.torch_device)
        except (RuntimeError, NotImplementedError):
            return torch.Generator()

    def rng_state(self) -> dict[str, Any]:
        """Returns the states of the default generators of torch (host and device), NumPy and
        ``random``, as tensors and numbers."""
        numpy_state: Any = np.random.get_state()
        kind, keys, position, has_gauss, gauss = numpy_state
        states: dict[str, Any] = {
            "host": torch.get_rng_state(),
            "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
            "python": random.getstate(),
        }
        if not self.is_cpu and hasattr(self._module, "get_rng_state"):
            states["device"] = self._own_rng_state()
        return states

    def set_rng_state(self, states: dict[str, Any]) -> None:
        """Restores a result of :meth:`rng_state`."""
        torch.set_rng_state(states["host"])
        kind, keys, *rest = states["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
        random.setstate(states["python"])
        if "device" in states and not self.is_cpu:
            self._set_own_rng_state(states["device"])

    @property
    def _place(self) -> tuple[torch.device, ...]:
        # This device need not be the current one; MPS has one only, and its functions name none.
        return () if self.torch_device.type in ("cpu", "mps") else (self.torch_device,)

    def _own_rng_state(self) -> torch.Tensor:
        return self._module.get_rng_state(*self._place)

    def _set_own_rng_state(self, state: torch.Tensor) -> None:
        self._module.set_rng_state(state, *self._place)

    @contextlib.contextmanager
    def states_again(self, states: tuple[Any, ...]) -> Iterator[None]:
        """Returns a context in which all default generators have earlier states again, a result of
        :meth:`generator_states`; afterwards they continue as if nothing had been drawn."""
        later = self.generator_states()
        self.set_generator_states(states)
        try:
            yield
        finally:
            self.set_generator_states(later)

    def seeded_state(self) -> torch.Tensor | None:
        """Returns the state of the generator that :attr:`seed` seeds, or None if the backend does
        not show it."""
        if self.is_cpu:
            return torch.get_rng_state()
        return self._own_rng_state() if hasattr(self._module, "get_rng_state") else None

    @contextlib.contextmanager
    def seeded_state_again(self, state: torch.Tensor) -> Iterator[None]:
        """Returns a context in which that generator has an earlier state again; afterwards it
        continues as if nothing had been drawn."""
        set_state = torch.set_rng_state if self.is_cpu else self._set_own_rng_state
        later = self.seeded_state()
        assert later is not None
        set_state(state)
        try:
            yield
        finally:
            set_state(later)

    def default_generator(self) -> torch.Generator | None:
        """Returns the generator that :attr:`seed` seeds, or None if the backend does not show
        it."""
        if self.is_cpu:
            return torch.default_generator
        found = getattr(self._module, "default_generators", ())
        index = self.torch_device.index or 0
        return found[index] if index < len(found) else None

    def generator_states(self) -> tuple[Any, ...]:
        """Returns the same states as :meth:`rng_state`, but quickly, for this process alone."""
        has_own = not self.is_cpu and hasattr(self._module, "get_rng_state")
        own = self._own_rng_state() if has_own else None
        return torch.get_rng_state(), np.random.get_state(), random.getstate(), own

    def set_generator_states(self, states: tuple[Any, ...]) -> None:
        """Restores a result of :meth:`generator_states`."""
        host, numpy_state, python_state, own = states
        torch.set_rng_state(host)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if own is not None:
            self._set_own_rng_state(own)

    def has_drawn_elsewhere(self, states: tuple[Any, ...]) -> bool:
        """Checks whether anything was drawn since ``states``, except from the generator that
        :attr:`seed` seeds."""
        now = self.generator_states()
        arrays = [np.array_equal(one, other) for one, other in zip(now[1], states[1], strict=True)]
        return not (
            all(arrays) and now[2] == states[2] and (self.is_cpu or torch.equal(now[0], states[0]))
        )


@contextmanager
def random_state_kept(device: Generators) -> Iterator[None]:
    """Returns a context after which the default generators of torch, NumPy and ``random`` stand as
    before it."""
    state = device.rng_state()
    try:
        yield
    finally:
        device.set_rng_state(state)
