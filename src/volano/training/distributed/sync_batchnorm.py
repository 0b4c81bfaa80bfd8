"""The BatchNorm over the batches of all ranks, on the CPU too."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from volano.device import Device
from volano.device.torch_private import AnyBatchNorm
from volano.errors import PlanError


def share_batch_statistics(model: nn.Module, device: Device) -> None:
    """Makes BatchNorm layers take their statistics over the batches of all ranks, as one process
    would.

    Layers are replaced in place; parameters and buffers are the same tensors. By torch's
    SyncBatchNorm if the device has it; on the CPU it refuses, so the two sums are exchanged
    here.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SyncBatchNorm | SharedBatchNorm) or not isinstance(
                child, AnyBatchNorm
            ):
                continue
            if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                raise PlanError(
                    "Several ranks can share the statistics of torch's own BatchNorm layers only",
                    got=f"a {type(child).__name__}, whose forward pass is its own",
                    remedy="Train with one process, or use nn.BatchNorm2d and its like",
                )
            convert = SharedBatchNorm if device.is_cpu else nn.SyncBatchNorm.convert_sync_batchnorm
            setattr(parent, name, convert(child))


class SharedBatchNorm(AnyBatchNorm):
    """The batch normalisation (Ioffe & Szegedy 2015) with mean and variance over the batches of
    all ranks."""

    def __init__(self, origin: AnyBatchNorm) -> None:
        super().__init__(
            origin.num_features, origin.eps, origin.momentum, False, origin.track_running_stats
        )
        self.affine = origin.affine
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(origin, name))
        self.training = origin.training

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # the layer that is replaced has its own rule, and the task ran with it

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [N, C, ...]; the shape stays."""
        if not self.training:
            return super().forward(input)
        output, mean_C, variance_C, count = _NormalizeOverRanks.apply(
            input, self.weight, self.bias, self.eps
        )
        if (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            self.num_batches_tracked.add_(1)
            share = (
                self.momentum
                if self.momentum is not None
                else 1.0 / float(self.num_batches_tracked)
            )
            with torch.no_grad():
                self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
                unbiased_C = variance_C * (count / (count - 1).clamp(min=1))
                self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), share)
        return output


class _NormalizeOverRanks(torch.autograd.Function):
    """The batch normalisation of torch's kernels, with statistics and gradients of statistics over
    all ranks.

    With ``x^ = (x - m) / s`` over ``n`` values of a channel, ``dx = w / s * (dy - (sum dy + x^ *
    sum dy x^) / n)`` (Ioffe & Szegedy 2015, section 3); the sums are over ranks.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the output and, over all ranks, mean [C], biased variance [C] and number of
        values of a channel."""
        wide = torch.promote_types(x.dtype, torch.float32)
        # Nothing is kept in the two vectors: their type is that in which the kernel adds up.
        kept = x.new_zeros(x.shape[1], dtype=wide), x.new_ones(x.shape[1], dtype=wide)
        own_mean, own_variance = torch.batch_norm_update_stats(x, *kept, 0.0)
        # Padded batches may differ in length.
        own_count = own_mean.new_full((1,), x.numel() // x.shape[1], dtype=wide)  # no copy
        own = torch.cat([own_count, own_mean.to(wide), own_variance.to(wide)])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        every = torch.stack(parts)
        counts_R, (means_RC, variances_RC) = every[:, :1], every[:, 1:].chunk(2, dim=1)
        count = counts_R.sum()
        mean_C = (counts_R * means_RC).sum(0) / count
        variance_C = (counts_R * (variances_RC + (means_RC - mean_C).square())).sum(0) / count
        output = torch.nn.functional.batch_norm(
            x, mean_C, variance_C, weight, bias, False, 0.0, eps
        )
        ctx.save_for_backward(x, weight, mean_C, variance_C, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean_C, variance_C, count)
        return output, mean_C, variance_C, count

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """Returns the gradients of input, weight and bias."""
        x, weight, mean_C, variance_C, count = ctx.saved_tensors
        inverse_C = torch.rsqrt(variance_C + ctx.eps)
        # The kernel for given statistics: dy w / s, and this rank's sums of dy x^ and of dy.
        direct, own_scaled_C, own_plain_C = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean_C, variance_C, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([own_scaled_C, own_plain_C]).to(mean_C.dtype)
        dist.all_reduce(sums)
        scaled_C, plain_C = sums.chunk(2)
        factor_C = (inverse_C if weight is None else weight * inverse_C) / count
        slope_C = -factor_C * scaled_C * inverse_C
        offset_C = -factor_C * plain_C - slope_C * mean_C
        shape = [1, -1, *[1] * (x.ndim - 2)]
        result = direct.addcmul_(x, slope_C.to(x.dtype).view(shape)).add_(
            offset_C.to(x.dtype).view(shape)
        )
        has_weight = weight is not None
        return (
            result,
            own_scaled_C if has_weight else None,
            own_plain_C if ctx.needs_input_grad[2] else None,
            None,
        )
