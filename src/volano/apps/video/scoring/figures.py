"""The final figures and pictures of a run of the video application: after training, and by eval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from volano.apps.video.integrate_flow import ClipSampling
from volano.apps.video.model_spec import VideoSpec
from volano.apps.video.recipe import FEATURE_STEPS
from volano.apps.video.scoring.features import FeatureNet, train_feature_net
from volano.apps.video.scoring.judge import NUM_REFERENCES, Judge, memorization
from volano.apps.video.scoring.scores import (
    generate_clips,
    generation_scores,
    predict_clips,
    prediction_scores,
)
from volano.apps.video.training import NUM_GENERATED, VideoTraining
from volano.data.sources import Clips
from volano.device import Device
from volano.errors import CheckpointError, VolanoError
from volano.report import tiled, write_gif, write_mp4, write_predictions
from volano.training import RunFolder, load_tensors, save_weights

DEFAULT_GUIDANCE = 1.5
_FEATURES = "feature-net.safetensors"
NUM_SHOWN = 16
# Covariances of 32 features from fewer clips say nothing.
_LEAST_COMPARED = 32
# The nearest training clip is looked for among so many.
_MOST_TRAIN, _MOST_NEAREST = 4096, 128


def write_results(
    folder: RunFolder,
    model: nn.Module,
    application: VideoTraining,
    device: Device,
    *,
    precision: str,
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """The final figures of a run, and its files: ``eval-test.json``, ``predictions.png``,
    ``clips-real.gif``, ``clips-generated.gif`` and ``clips-generated.mp4``. One that cannot be
    written is a notice: it is no reason to lose the figures.

    Returns:
        The figures for ``run.json``, the self-test of the distances, and what a person should know.
    """
    spec, options, test = application.spec, application.options, application.sets.test
    count = NUM_GENERATED if options.num_generated is None else options.num_generated
    steps = FEATURE_STEPS if options.feature_steps is None else options.feature_steps
    net = None
    if count and steps and _num_compared(application, test, count) >= _LEAST_COMPARED:
        net = train_feature_net(
            _windows_of(application), spec.scale, device, num_steps=steps, seed=options.seed
        )
    result, generated, notices = score_model(
        application, model, net, test, device, precision=precision, count=count
    )
    real, made = tiled(test.frames[:NUM_SHOWN].numpy()), tiled(generated[:NUM_SHOWN].numpy())
    files: dict[str, Callable[[Path], Any]] = {
        "eval-test.json": lambda path: folder.write_json(
            path.name, {"origin": f"{application.sets.origin}, test", **result}
        ),
        "clips-real.gif": lambda path: write_gif(real, path, fps=spec.fps),
        "clips-generated.gif": lambda path: write_gif(made, path, fps=spec.fps),
        "clips-generated.mp4": lambda path: write_mp4(made, path, fps=spec.fps),
        "predictions.png": lambda path: draw_predictions(model, spec, test, device, path),
    }
    if net is not None:
        files[_FEATURES] = functools.partial(save_weights, net)
    for name, write in files.items():
        notices += _written(folder.path / name, write)
    return figures_of(result), result["self_test"], notices


def _written(path: Path, write: Callable[[Path], Any]) -> list[str]:
    """Writes a file; what a person should know of it."""
    try:
        said = write(path)
    except (OSError, VolanoError) as error:
        return [f"{path.name} is missing: {error}"]
    except Exception as error:  # noqa: BLE001 - whatever a library for pictures or clips meets
        return [f"{path.name} is missing: {type(error).__name__}: {error}"]
    return [said] if isinstance(said, str) else []


def sampling_for_figures(spec: VideoSpec) -> ClipSampling:
    """Returns the settings by which the clips for the final figures are made."""
    return ClipSampling(guidance=DEFAULT_GUIDANCE if spec.classes else 1.0)


def figures_of(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation by their public names, for ``run.json`` and JSON output."""
    return {
        "psnr_first_frame": result["psnr"][0],
        "psnr_baselines": {name: scores["psnr"][0] for name, scores in result["baselines"].items()},
        "ssim_first_frame": result["ssim"][0],
        "frechet_ratio": result.get("frechet_ratio"),
        "kernel_ratio": result.get("kernel_ratio"),
        "self_test_passed": (result.get("self_test") or {}).get("passed"),
        "num_test": result["num_clips"],
    }


def distances_in_words(figures: Mapping[str, Any]) -> list[str]:
    """Puts the ratio of distances into words, and what the test of that ruler says."""
    if figures["self_test_passed"] is None:
        return []
    if figures["frechet_ratio"] is None:
        lines = [
            "no distances of generated clips: the self-test FAILED; what was measured: 'rejected' "
            "in eval-*.json"
        ]
    else:
        lines = [
            f"generated clips are {figures['frechet_ratio']:.1f} times as far from test clips as "
            "training clips are",
            f"  (Frechet; by the kernel distance {figures['kernel_ratio']:.1f}; self-test passed)",
        ]
    ruler = figures.get("self_test")
    if ruler is not None:
        spoiled = ", ".join(
            f"{kind} {ratio:.1f}" for kind, ratio in ruler["frechet"].items() if kind != "real"
        )
        untouched = ruler["frechet"]["real"]
        lines.append(
            f"  spoiled real clips: {spoiled}; untouched ones at most {untouched:.1f} (Frechet)"
        )
        lines += [f"  {ruler['reason']}"] if ruler["reason"] else []
    return lines


def score_model(
    application: VideoTraining,
    model: nn.Module,
    net: FeatureNet | None,
    test: Clips,
    device: Device,
    *,
    precision: str,
    count: int,
) -> tuple[dict[str, Any], Tensor, list[str]]:
    """Returns the figures of a model on test clips, the clips generated for them, and notices."""
    spec, notices = application.spec, []
    predicted = predict_clips(model, spec, test, device, precision=precision)
    result = prediction_scores(predicted, test.frames, application.sets.train, spec.context)
    result["method"] = "one step from noise, the mean of what may follow" + (
        "; the class is given" * bool(spec.classes)
    )
    sampling = dataclasses.replace(sampling_for_figures(spec), seed=application.options.seed)
    generated = generate_clips(
        model, spec, device, count=NUM_SHOWN if net is None else max(count, NUM_SHOWN),
        num_frames=spec.num_frames, sampling=sampling, precision=precision,
    )  # fmt: skip
    train, compared = _windows_of(application), _num_compared(application, test, count)
    result["nearest_training_distance"] = memorization(
        generated[:_MOST_NEAREST], test.frames[:_MOST_NEAREST], train
    )
    result |= {"frechet_ratio": None, "kernel_ratio": None, "rejected": None, "self_test": None}
    if count and compared < _LEAST_COMPARED:
        notices.append(
            f"no distances of generated clips: {compared} test clips (or a quarter of the "
            f"training clips) are fewer than the {_LEAST_COMPARED} that they need"
        )
    elif net is not None:
        some = _spread(test.frames, compared)
        result |= generation_scores(
            generated[:compared], Judge(net, train, some, device), seed=application.options.seed
        )
        if not result["self_test"]["passed"]:
            notices.append(
                f"the distances of generated clips are rejected: {result['self_test']['reason']}"
            )
    elif count:
        notices.append(f"no distances of generated clips: {_FEATURES} is not in the run's folder")
    return result, generated, notices


def _num_compared(application: VideoTraining, test: Clips, count: int) -> int:
    """Returns the number of clips in each set of which distances are taken."""
    return min(len(test), count, len(application.sets.train) // NUM_REFERENCES)


def _windows_of(application: VideoTraining) -> Tensor:
    """The first T frames of the training clips, in an order that mixes files: uint8 [M, T, C, S,
    S]."""
    frames = application.sets.train.frames[:, : application.spec.num_frames]
    generator = torch.Generator().manual_seed(application.options.seed)
    return frames[torch.randperm(len(frames), generator=generator)[:_MOST_TRAIN]]


def _spread(frames: Tensor, count: int) -> Tensor:
    return frames[torch.linspace(0, len(frames) - 1, count).round().long()]


def load_features(folder: RunFolder, spec: VideoSpec, device: Device) -> FeatureNet | None:
    path = folder.path / _FEATURES
    if not path.is_file():
        return None
    net = FeatureNet(channels=spec.channels, scale=spec.scale)
    try:
        net.load_state_dict(load_tensors(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{_FEATURES} of a run must be readable", got=f"{path}: {error}"
        ) from error
    return net.to(device.torch_device).eval()


def draw_predictions(
    model: nn.Module, spec: VideoSpec, test: Clips, device: Device, path: Path
) -> None:
    few = test.select(range(min(4, len(test))))
    predicted = predict_clips(model, spec, few, device, precision="fp32")
    write_predictions(few.frames.numpy(), predicted.numpy(), path)
