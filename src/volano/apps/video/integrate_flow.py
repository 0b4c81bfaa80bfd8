"""Makes clips: integrates the flow from noise to pictures, after given first frames, and beyond the
window.

Shapes: B clips, T frames of the network's window, C channels, S pixels a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# (noisy [B, T, C, S, S], levels [B, T]) -> clean [B, T, C, S, S]
Denoiser = Callable[[Tensor, Tensor], Tensor]


def integrate(
    denoise: Denoiser,
    noise: Tensor,
    *,
    steps: int,
    method: str = "heun",
    given: Tensor | None = None,
) -> Tensor:
    """Makes clips fp32 [B, T, C, S, S] from noise of that shape.

    Solves ``dz/dt = (clean(z, t) - z) / (1 - t)`` from t = 0 to 1 in equal steps, by Euler's rule
    or Heun's (whose last step, where the field is singular, is Euler's; Karras et al. 2022,
    algorithm 1).

    Args:
        denoise: the network.
        noise: fp32, deviation 1.
        steps: the number of steps, at least 1; one step gives the mean of what may be.
        method: "euler", or "heun" with about twice as many evaluations for an error of second
            order.
        given: the first frames, clean, fp32 [B, K, C, S, S]; they stay as they are.
    """
    known = 0 if given is None else given.shape[1]
    z = noise if given is None else torch.cat([given, noise[:, known:]], 1)

    def field(z: Tensor, t: float) -> Tensor:
        levels = torch.full(z.shape[:2], t, device=z.device)
        levels[:, :known] = 1.0
        slope = (denoise(z, levels).float() - z) / (1 - t)
        if known:
            slope[:, :known] = 0.0
        return slope

    times = [number / steps for number in range(steps + 1)]
    for t, following in itertools.pairwise(times):
        slope = field(z, t)
        ahead = z + (following - t) * slope
        if method == "heun" and following < 1:
            ahead = z + (following - t) * (slope + field(ahead, following)) / 2
        z = ahead
    return z


@dataclass(frozen=True, kw_only=True)
class ClipSampling:
    """The settings by which clips are made.

    Attributes:
        steps: the steps of the integration.
        method: "euler" or "heun".
        guidance: the distance from the classless answer towards that of the class (Ho & Salimans
            2022); 1 is the class's.
        label: the class of all clips; None draws classes as often as they occur.
        seed: the seed of the noise, and of the classes if none is asked for.
    """

    steps: int = 20
    method: str = "euler"
    guidance: float = 1.0
    label: int | None = None
    seed: int = 0


def denoiser(network: Any, labels: Tensor | None, guidance: float) -> Denoiser:
    """The network as a function of noisy clips and levels: ``unsaid + guidance * (said -
    unsaid)``."""
    if labels is None or guidance == 1.0:
        return lambda noisy, levels: network(noisy, levels, labels)

    def guided(noisy: Tensor, levels: Tensor) -> Tensor:
        unsaid = torch.full_like(labels, network.num_classes)
        both = network(
            noisy.repeat(2, 1, 1, 1, 1), levels.repeat(2, 1), torch.cat([labels, unsaid])
        ).float()
        said, without = both.chunk(2)
        return without + guidance * (said - without)

    return guided


def roll_out(
    network: Any,
    sampling: ClipSampling,
    generators: Sequence[torch.Generator],
    *,
    shape: tuple[int, int, int, int, int],
    num_frames: int,
    context: int,
    labels: Tensor | None = None,
    given: Tensor | None = None,
) -> Tensor:
    """Makes clips fp32 [B, ``num_frames``, C, S, S], the given frames first, in the network's
    scale.

    Longer than the window: the last ``context`` frames are given to the next window, and so on.

    Args:
        network: the network of the video application, in evaluation mode.
        sampling: the settings of the draws.
        generators: the generators on the host, one for each clip, so that a clip does not depend on
            those made with it.
        shape: (B, T, C, S, S), of one window.
        num_frames: the number of frames to make, the given ones among them.
        context: frames handed from window to window, 1 to T - 1.
        labels: int64 [B], or None for clips of no class.
        given: first frames fp32 [B, K, C, S, S], K from 1 to T - 1, or None.
    """
    device = next(network.parameters()).device
    denoise = denoiser(network, None if labels is None else labels.to(device), sampling.guidance)
    clips: Tensor | None = None
    while clips is None or clips.shape[1] < num_frames:
        noise = torch.stack(
            [torch.randn(shape[1:], generator=generator) for generator in generators]
        ).to(device)
        known = given if clips is None else clips[:, -context:]
        window = integrate(
            denoise, noise, steps=sampling.steps, method=sampling.method, given=known
        )
        fresh = window if clips is None or known is None else window[:, known.shape[1] :]
        clips = fresh if clips is None else torch.cat([clips, fresh], 1)
    return clips[:, :num_frames]
