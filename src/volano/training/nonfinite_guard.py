"""Keeps a step whose loss or gradient is not finite from the weights and from the optimizer's
state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from volano.device import Device
from volano.device.torch_private import check_and_unscale, foreach_norm, sparse_values_of
from volano.training.distributed.data_parallel import local


class NonfiniteGuard:
    """Looks at each step between its backward pass and its update.

    On the CPU, and if ``reads_at_once``, the answer is read before the update. On an accelerator
    it stays on the device and the host looks when it reads losses anyway, so that nothing waits;
    the flag stays up until then. A fused update obeys it there (``found_inf``, the contract of
    torch's GradScaler with its optimizers): weights and state stay as they are. Other updates are
    made; such weights are never saved, because a save looks first.

    With a GradScaler (fp16) infinite gradients are its business: it skips them while it looks for
    its scale. The loss is looked at here all the same.

    Args:
        device: the device of the parameters.
        optimizer: whose update is guarded.
        has_scaler: whether a GradScaler looks at the gradients.
        reads_at_once: whether each step's answer must be known before the next.
        share: raises the flag if another rank has raised it; for ranks that each see a part of
            the gradients.
        has_values: False for tensors that have shapes and no values (FakeTensorMode): it works as
            ever, reads nothing, and lets every step pass.
    """

    def __init__(
        self,
        device: Device,
        optimizer: torch.optim.Optimizer,
        *,
        has_scaler: bool,
        reads_at_once: bool,
        share: Callable[[Tensor], None] | None = None,
        has_values: bool = True,
    ) -> None:
        self._share, self._has_values = share, has_values
        self._is_cpu = device.is_cpu
        self._has_scaler = has_scaler
        self._flag = torch.zeros((), device=device.torch_device)
        self._one = torch.ones((), device=device.torch_device)
        self._num_flagged = torch.zeros((), device=device.torch_device)
        self._parameters: list[nn.Parameter] = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]
        self._look_at: dict[torch.dtype, Callable[[list[Tensor]], None]] = {}
        self.is_deferred = not reads_at_once and not device.is_cpu
        self.holds_back = not self.is_deferred or (not has_scaler and _is_fused(optimizer))
        if self.is_deferred and self.holds_back:
            optimizer.found_inf = self._flag  # pyright: ignore[reportAttributeAccessIssue] - as GradScaler sets it

    def lets_pass(self, loss: Tensor, norm: Tensor | None) -> bool:
        """Returns whether the update may be made. ``norm`` is the gradient's, if it is known from
        clipping."""
        scalars = [loss] if norm is None or self._has_scaler else [loss, norm]
        has_all = norm is not None or self._has_scaler
        if (
            self._is_cpu
            and self._has_values
            and not all(math.isfinite(scalar.item()) for scalar in scalars)
        ):
            return False
        if self._is_cpu and has_all:
            return True
        if not self.is_deferred:
            self._flag.zero_()
        looked_at = [] if self._is_cpu else scalars
        if not has_all:
            gradients = [_dense(local(p.grad)) for p in self._parameters if p.grad is not None]
            looked_at = [*looked_at, *gradients]
        self._look_at_all(looked_at)
        if self._share is not None and not has_all:
            self._share(self._flag)
        if self.is_deferred:
            self._num_flagged.add_(self._flag)
            return True
        return not self._has_values or self._flag.item() == 0.0

    @property
    def num_flagged(self) -> Tensor | int:
        """Returns how many of the last steps are behind a raised flag that is still on the device,
        if the guard defers."""
        return self._num_flagged if self.is_deferred else 0

    def _look_at_all(self, tensors: list[Tensor]) -> None:
        """Looks at tensors with one launch for each type: loss and norm go with the gradients."""
        groups: dict[Any, list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            groups[tensor.device, tensor.dtype].append(tensor)
        for group in groups.values():
            self._look(group)

    def _look(self, tensors: list[Tensor]) -> None:
        """Looks at tensors of one type."""
        dtype = tensors[0].dtype
        if dtype not in self._look_at:  # a device may have the kernel for some types only
            self._look_at[dtype] = _probe(self, dtype)
        self._look_at[dtype](tensors)

    def look_by_kernel(self, tensors: list[Tensor]) -> None:
        """Looks at all tensors with one kernel: it multiplies them by one, which changes none, and
        raises the flag."""
        check_and_unscale(tensors, self._flag, self._one)

    def look_by_norms(self, tensors: list[Tensor]) -> None:
        """Looks by norms, for devices that lack the kernel."""
        norms = torch.stack([norm.float() for norm in foreach_norm(tensors)])
        self._flag.copy_(torch.maximum(self._flag, (~norms.isfinite().all()).float()))


def _probe(guard: NonfiniteGuard, dtype: torch.dtype) -> Callable[[list[Tensor]], None]:
    try:
        guard.look_by_kernel([torch.ones_like(guard._one, dtype=dtype)])
    except (RuntimeError, NotImplementedError):
        return guard.look_by_norms
    return guard.look_by_kernel


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    return type(optimizer).__module__.startswith("torch.optim.") and all(
        group.get("fused") for group in optimizer.param_groups
    )


def _dense(gradient: Tensor) -> Tensor:
    if gradient.is_sparse:
        gradient = sparse_values_of(gradient)
    return torch.view_as_real(gradient) if gradient.is_complex() else gradient
