"""The convolutional network family: a whitened VGG with identity initialisation.

Shape of the family (K. Jordan's airbench94/96, arXiv 2404.00498 and its repository; the numbers
marked *measured* come from two cores with AVX512_BF16, see docs/log.md):

* a frozen stem that whitens small patches (leading eigenvectors of the patch covariance, each
  with both signs), so that the first trained layer sees decorrelated inputs;
* groups of ``conv, pool, norm, act`` and ``conv, norm, act``, each halving the resolution;
* batch norm without scale, kernels that start as the identity, a global maximum, a linear head.

Stem channels and widths are multiples of eight, mostly of sixteen: *measured*, the first group
with 16 input channels takes 26 ms, with 18 channels 39 ms (batch 512, bf16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.errors import DataError, UsageError

FIRST_WIDTH = {"tiny": 16, "thin": 32, "base": 64, "wide": 128}
LARGE_RESOLUTION = 96  # from here on the stem halves the resolution
WHITENING_EPSILON = 5e-4  # airbench94: added to the patch variances (of inputs of variance one)
WHITENING_PATCHES = 200_000  # enough for a covariance of at most 48 x 48 entries
NORM_MOMENTUM = 0.4  # airbench94 (written there as 0.6, the share that is kept)


@dataclass(frozen=True)
class Shape:
    """The numbers that fix the tensors of a network."""

    in_channels: int
    num_classes: int
    stem_kernel: int
    stem_stride: int
    stem_padding: int
    stem_filters: int  # whitening directions; the stem has twice as many channels
    widths: tuple[int, ...]  # one entry per group
    convs: int  # convolutions per group
    residual: bool  # a skip around the convolutions after the pool of each group


def choose_shape(size: str, in_channels: int, resolution: int, num_classes: int) -> Shape:
    """Chooses stem, number of groups and widths for square images of ``resolution`` pixels.

    * Stem: 3 x 3 patches for grey images (2 x 2 has only four directions), 2 x 2 for colour
      (airbench); 4 x 4 with stride 2 from 96 pixels up. Images under 16 pixels are padded so
      that no border is lost.
    * Groups: as many as leave 2 to 5 pixels at the end: 8 px: 1, 12: 2, 24-47: 3, 48-95: 4,
      96-160 (after the stride-2 stem): 4.
    * Widths: doubling up to four times the first. With fewer than three groups the narrow ones
      are left out, so the features before the head always number four times the first width.
    """
    if size not in FIRST_WIDTH:
        raise UsageError(
            f"A network's `size` must be one of {', '.join(FIRST_WIDTH)}", got=repr(size)
        )
    if resolution < 4:
        raise DataError(
            "Images must have at least 4 pixels a side",
            got=resolution,
            remedy="Choose a larger `image_size`",
        )
    if resolution >= LARGE_RESOLUTION:
        kernel, stride, padding = 4, 2, 1
        filters = 8 * min(2 if in_channels == 1 else 3, in_channels * 2)
    else:
        kernel, stride = (3, 1) if in_channels == 1 else (2, 1)
        padding = 1 if resolution < 16 else 0
        filters = 8 if in_channels == 1 else min(12, in_channels * 4)
    groups = max(1, math.floor(math.log2(resolution / stride / 3)))
    first = FIRST_WIDTH[size]
    skipped = max(0, 3 - groups)
    widths = tuple(first * 2 ** min(2, index + skipped) for index in range(groups))
    deep = size == "wide"  # airbench96: three convolutions a group and a skip
    return Shape(
        in_channels, num_classes, kernel, stride, padding, filters, widths, 3 if deep else 2, deep
    )


def patch_whitening(images: Tensor, kernel: int, filters: int) -> Tensor:
    """Returns whitening kernels ``[2 * filters, C, kernel, kernel]`` for normalised images.

    ``images`` is ``[N, C, H, W]`` float. The kernels are the ``filters`` leading eigenvectors of
    the covariance of all patches, divided by the square root of their variance, then the same
    with the sign changed (so that a rectifier loses nothing).
    """
    channels = images.shape[1]
    positions = (images.shape[2] - kernel + 1) * (images.shape[3] - kernel + 1)
    wanted = max(16, WHITENING_PATCHES // positions)
    chosen = torch.linspace(0, len(images) - 1, min(wanted, len(images))).long()
    patches = F.unfold(images[chosen.to(images.device)], kernel)
    patches = patches.transpose(1, 2).reshape(-1, channels * kernel * kernel).cpu().double()
    variances, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    scaled = (vectors / (variances.clamp(min=0) + WHITENING_EPSILON).sqrt()).T.flip(0)[:filters]
    kernels = scaled.float().reshape(-1, channels, kernel, kernel)
    return torch.cat([kernels, -kernels])


def identity_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Returns a 3 x 3 convolution whose leading outputs copy the inputs (airbench94)."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    # nn.init.dirac_ goes element by element: hundreds of operations, for each of which a prediction
    # under fake tensors pays milliseconds.
    with torch.no_grad():
        copying = convolution.weight[: min(inputs, outputs)].zero_()
        copying[:, :, 1, 1].diagonal().fill_(1.0)
    return convolution


def scaleless_norm(width: int) -> nn.BatchNorm2d:
    """Returns a batch norm with a trained bias and a fixed scale of one (airbench94)."""
    norm = nn.BatchNorm2d(width, momentum=NORM_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


class ResidualGroup(nn.Module):
    """The convolutions at one resolution; the first is followed by a pool that halves it."""

    def __init__(self, inputs: int, width: int, convs: int, residual: bool) -> None:
        """Builds ``convs`` convolutions from ``inputs`` to ``width`` channels."""
        super().__init__()
        self.residual = residual
        self.convolutions = nn.ModuleList(
            identity_convolution(inputs if index == 0 else width, width) for index in range(convs)
        )
        self.norms = nn.ModuleList(scaleless_norm(width) for _ in range(convs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[N, inputs, H, W]`` to ``[N, width, H // 2, W // 2]``."""
        x = F.max_pool2d(self.convolutions[0](x), 2)
        x = skip = F.gelu(self.norms[0](x))
        last = len(self.convolutions) - 1
        for index in range(1, last + 1):
            x = self.norms[index](self.convolutions[index](x))
            if self.residual and index == last:
                x = x + skip
            x = F.gelu(x)
        return x


class Network(nn.Module):
    """Maps bytes ``[N, C, H, W]`` to logits ``[N, num_classes]``; normalises by itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, mean: Sequence[float], std: Sequence[float]) -> None:
        """Builds the layers; ``mean`` and ``std`` are per channel, on the scale of bytes."""
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        channels = 2 * shape.stem_filters
        self.stem = nn.Conv2d(
            shape.in_channels,
            channels,
            shape.stem_kernel,
            stride=shape.stem_stride,
            padding=shape.stem_padding,
        )
        self.stem.weight.requires_grad_(False)
        nn.init.zeros_(self.stem.bias)  # type: ignore[arg-type]
        self.groups = nn.ModuleList()
        for width in shape.widths:
            self.groups.append(ResidualGroup(channels, width, shape.convs, shape.residual))
            channels = width
        self.head = nn.Linear(channels, shape.num_classes, bias=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Turns bytes into floats of mean zero and variance one per channel."""
        return (images.float() - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits; float32, also under autocast."""
        x = F.gelu(self.stem(self.normalise(images)))
        for group in self.groups:
            x = group(x)
        # Compiled in bf16, the gradient of `amax` divides 0 by 0 on the CPU (torch 2.13); that of
        # `max` is sound.
        return self.head(x.flatten(2).max(2).values).float()

    @torch.no_grad()
    def whiten(self, images: Tensor) -> None:
        """Sets the frozen stem from training images, bytes ``[N, C, H, W]``."""
        shape = self.shape
        kernels = patch_whitening(self.normalise(images), shape.stem_kernel, shape.stem_filters)
        self.stem.weight.copy_(kernels)


def build_network(
    size: str,
    in_channels: int,
    resolution: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    whitening_patches: Tensor | None = None,
) -> Network:
    """Builds a network; ``whitening_patches`` are training images (bytes, some hundred to 5,000).

    Without them the stem stays random until a state dict is loaded.
    """
    shape = choose_shape(size, in_channels, resolution, num_classes)
    network = Network(shape, mean, std)
    if whitening_patches is not None:
        network.whiten(whitening_patches)
    return network


def parameter_groups(model: nn.Module, *, kernel_lr: float, rest_lr: float) -> list[dict[str, Any]]:
    """Splits trained parameters for MuonAdamW.

    "kernels" (Muon): all convolutions with a gradient. The norm of a kernel is held constant
    (the batch norm behind it makes it meaningless), hence no weight decay. "rest" (AdamW):
    biases and the head, betas (0.9, 0.99) because runs are short.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    kernels = [p for p in trained if p.ndim == 4]
    rest = [p for p in trained if p.ndim != 4]
    return [
        {
            "name": "kernels",
            "algorithm": "muon",
            "params": kernels,
            "lr": kernel_lr,
            "momentum": 0.8,  # airbench94_muon has 0.6 at batch 2,000; 0.8 used here at 500
            "ns_steps": 3,  # airbench94_muon
            "weight_decay": 0.0,
            "renormalize": True,
        },
        {
            "name": "rest",
            "algorithm": "adamw",
            "params": rest,
            "lr": rest_lr,
            "betas": (0.9, 0.99),
            "weight_decay": 0.0,
        },
    ]


def forward_flops(shape: Shape, resolution: int) -> int:
    """Returns the multiply-adds of one image through the convolutions, times two."""
    pixels = (resolution + 2 * shape.stem_padding - shape.stem_kernel) // shape.stem_stride + 1
    channels = 2 * shape.stem_filters
    total = 2 * pixels**2 * channels * shape.in_channels * shape.stem_kernel**2
    for width in shape.widths:
        total += 2 * pixels**2 * 9 * channels * width
        pixels //= 2
        total += 2 * pixels**2 * 9 * width * width * (shape.convs - 1)
        channels = width
    return total
