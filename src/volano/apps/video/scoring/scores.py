"""The final figures of a model of clips: prediction against trivial ones, and generated clips
against real ones.

Shapes: N clips, T frames, K of them given, C channels, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from volano.apps.video.flow import predict_in_one_step
from volano.apps.video.integrate_flow import ClipSampling, roll_out
from volano.apps.video.model_spec import VideoSpec
from volano.apps.video.quality import copy_last, frame_psnr, frame_ssim, mean_frame
from volano.apps.video.scoring.distances import frechet_distance
from volano.apps.video.scoring.judge import NUM_REFERENCES, Judge, biased_kernel_distance
from volano.data import counter_hash
from volano.data.sources import Clips
from volano.device import Device

_SAMPLE, _PREDICT = 61, 62  # first counters of the seeds
_BATCH = 64


def generate_clips(
    model: Any,
    spec: VideoSpec,
    device: Device,
    *,
    count: int,
    num_frames: int,
    sampling: ClipSampling,
    precision: str = "fp32",
    given: Tensor | None = None,
) -> Tensor:
    """Makes clips uint8 [count, num_frames, C, S, S] on the host; clip k is a function of the seed
    and k.

    Args:
        model: the model, in evaluation mode, on the device.
        spec: the description of the model.
        device: the device on which the model is.
        count: the number of clips.
        num_frames: the number of frames of each, the given ones among them; more than the window is
            a rollout.
        sampling: the settings of the draws.
        precision: the precision of the arithmetic.
        given: first frames uint8 [K, C, S, S] of all clips, K from 1 to T - 1, or None.
    """
    shape = (spec.num_frames, *spec.frame_shape)
    parts = []
    with torch.inference_mode(), device.autocast(precision):
        for start in range(0, count, _BATCH):
            numbers = range(start, min(start + _BATCH, count))
            seeds = (counter_hash(_SAMPLE, sampling.seed, number) >> 1 for number in numbers)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            known = None
            if given is not None:
                known = model.scale.encode(device.move(given)).expand(len(numbers), -1, -1, -1, -1)
            clips = roll_out(
                model, sampling, generators,
                shape=(len(numbers), *shape), num_frames=num_frames, context=spec.context,
                labels=_labels(spec, generators, sampling.label), given=known,
            )  # fmt: skip
            parts.append(model.scale.decode(clips).cpu())
    made = torch.cat(parts)
    if given is not None:
        made[:, : len(given)] = given[:num_frames]  # as they were, not through the scale and back
    return made


def _labels(spec: VideoSpec, generators: list[torch.Generator], label: int | None) -> Tensor | None:
    if not spec.classes:
        return None
    if label is not None:
        return torch.full((len(generators),), label)
    shares = torch.tensor(spec.class_shares)
    return torch.cat(
        [torch.multinomial(shares, 1, generator=generator) for generator in generators]
    )


def predict_clips(
    model: Any, spec: VideoSpec, clips: Clips, device: Device, *, precision: str
) -> Tensor:
    """The frames after the context, uint8 [N, T - K, C, S, S]: in one step, the mean of what may
    follow. A clip's class is given if there are classes."""
    parts = []
    with torch.inference_mode(), device.autocast(precision):
        for number, (frames, labels) in enumerate(
            zip(clips.frames.split(_BATCH), clips.labels.split(_BATCH), strict=True)
        ):
            device.seed(counter_hash(_PREDICT, number) >> 1)
            known = labels if spec.classes else None
            clean = model.scale.encode(device.move(frames))
            predicted = predict_in_one_step(model, clean, device.move(known), spec.context)
            parts.append(model.scale.decode(predicted[:, spec.context :]).cpu())
    return torch.cat(parts)


def prediction_scores(
    predicted: Tensor, clips: Tensor, train: Clips, context: int
) -> dict[str, Any]:
    """Returns PSNR and SSIM of each predicted frame, of the last given frame and of the mean
    training frame.

    predicted uint8 [N, T - K, C, S, S], clips uint8 [N, T, C, S, S].
    """
    real = clips[:, context:]
    trivial = {
        "copy_last": copy_last(clips, context),
        "mean_frame": mean_frame(train.frames, train.lengths).expand_as(real),
    }
    return {
        **_per_frame(predicted, real),
        "context": context,
        "num_clips": len(clips),
        "baselines": {name: _per_frame(frames, real) for name, frames in trivial.items()},
    }


def _per_frame(predicted: Tensor, real: Tensor) -> dict[str, list[float]]:
    scores: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": frame_psnr, "ssim": frame_ssim}
    return {
        name: [round(v, 4) for v in score(predicted, real).mean(0).tolist()]
        for name, score in scores.items()
    }


def generation_scores(generated: Tensor, judge: Judge, *, seed: int) -> dict[str, Any]:
    """Returns the ratios of the distances of clips uint8 [N, T, C, S, S], with the self-test of the
    distances. If that fails the figures are None, and what was measured stands under
    ``rejected``."""
    ratios = {
        "frechet_ratio": judge.ratio(generated, frechet_distance),
        "kernel_ratio": judge.ratio(generated, biased_kernel_distance),
    }
    test = judge.self_test(seed=seed)
    return {
        **(ratios if test.passed else dict.fromkeys(ratios)),
        "rejected": None if test.passed else ratios,
        "num_generated": len(generated),
        "num_references": NUM_REFERENCES,
        "self_test": test.to_json(),
    }
