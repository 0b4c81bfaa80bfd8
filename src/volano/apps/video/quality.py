"""Measures how near predicted frames are to real ones: PSNR, SSIM, and the scores of trivial
predictions.

Shapes: N clips, F frames, C channels, S pixels a side; bytes in, fp32 out.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A frame that is met exactly scores this instead of infinity.
MOST_PSNR = 100.0
# Wang et al. 2004: a Gaussian window of 11 pixels and deviation 1.5, K1 = 0.01, K2 = 0.03.
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Of training clips that are copied at a time.
_MOST_BYTES = 2**26


def frame_psnr(predicted: Tensor, real: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of each frame in decibels [N, F]: ``10 log10(255^2 /
    mean squared error)``, at most 100. uint8 [N, F, C, S, S] both."""
    errors = (predicted.float() - real.float()).square().mean((2, 3, 4)) / 255**2
    return (-10 * torch.log10(errors.clamp(min=1e-30))).clamp(max=MOST_PSNR)


def frame_ssim(predicted: Tensor, real: Tensor) -> Tensor:
    """Returns the structural similarity of each frame [N, F] (Wang, Bovik, Sheikh & Simoncelli
    2004), mean over pixels whose window lies inside the frame, and over channels. uint8 [N, F, C,
    S, S] both, S at least 11 (else a smaller window).
    """
    shape = predicted.shape
    window = _gaussian_windows(shape[-1], predicted.device)
    x, y = (clip.float().flatten(0, 2) / 255 for clip in (predicted, real))

    def blur(values: Tensor) -> Tensor:
        return window @ values @ window.T

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    index = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return index.mean((1, 2)).reshape(shape[0], shape[1], shape[2]).mean(2)


def _gaussian_windows(side: int, device: torch.device) -> Tensor:
    """A matrix [places, side] that takes the weighted mean of each window along one axis: as two
    products of matrices, a blur costs a tenth of what it does as convolutions with one channel."""
    size = min(_WINDOW, side - (1 - side % 2))
    places = torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    matrix = torch.zeros(side - size + 1, side, device=device)
    for row in range(len(matrix)):
        matrix[row, row : row + size] = weights
    return matrix


def copy_last(clips: Tensor, context: int) -> Tensor:
    """The last frame that is given, again and again: uint8 [N, T - context, C, S, S] for clips
    uint8 [N, T, ...]."""
    return clips[:, context - 1 : context].expand(-1, clips.shape[1] - context, -1, -1, -1)


def mean_frame(train: Tensor, lengths: Tensor) -> Tensor:
    """The mean of all real frames of the training clips, uint8 [C, S, S]; train uint8 [N, L, C, S,
    S], of which the first ``lengths`` int64 [N] frames are real."""
    total = torch.zeros(train.shape[2:], dtype=torch.float64)
    places = torch.arange(train.shape[1])
    at_once = max(1, _MOST_BYTES // train[0].numel())
    for part, real in zip(train.split(at_once), lengths.split(at_once), strict=True):
        total += part[places < real[:, None]].sum(0, dtype=torch.float64).cpu()
    return (total / int(lengths.sum())).round().to(torch.uint8)
