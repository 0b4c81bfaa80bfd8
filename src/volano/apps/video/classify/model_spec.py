"""The description of a trained classifier of clips, from which it is built and fed again; kept in
``video.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from volano.apps.image.fine_tuning.network import codes_of, load_trained, trunk_again
from volano.apps.model_spec import ModelSpec
from volano.apps.targets.classes import OneClass
from volano.apps.targets.target import Target
from volano.apps.video.classify.network import ClipClassifier, FrameTrunk
from volano.apps.video.pixels import PixelScale
from volano.data.sources import CUT, ClipFormat
from volano.device import Device
from volano.pretrained.fine_tuned import FineTuned, StandardizedLinear
from volano.pretrained.network_references import HEAD

GOAL = "classes"
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ClipClassesSpec(ModelSpec):
    """A classifier of clips, without its weights.

    Attributes:
        classes: the class names, in the order of the logits.
        num_frames: T, the frames that it looks at.
        channels: 1 or 3.
        size: pixels a side.
        fps: frames a second to which files are decoded.
        mean, std: mean and deviation of each channel's bytes over the training clips.
        width: of Volano's own network.
        fit: see ``ClipFormat``.
        pretrained: what the image application says of a pretrained network; None without one.
    """

    file = "video.json"
    what = "a classifier of clips"
    goal = GOAL
    bounds = {  # noqa: RUF012
        "width": (4, 1024), "num_frames": (1, 1024), "channels": (1, 4), "size": (1, 1024)
    }  # fmt: skip

    classes: tuple[str, ...]
    num_frames: int
    channels: int
    size: int
    fps: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: int
    fit: str = CUT
    pretrained: dict[str, Any] | None = None

    @property
    def answers(self) -> Target:
        """The target: what the network gives."""
        return OneClass(names=self.classes)

    @property
    def clip_format(self) -> ClipFormat:
        """The format to which files are decoded."""
        return ClipFormat(channels=self.channels, size=self.size, fps=self.fps, fit=self.fit)

    def build(self) -> ClipClassifier:
        """The network of Volano's own with fresh weights."""
        return ClipClassifier(
            channels=self.channels, num_classes=len(self.classes), width=self.width,
            scale=PixelScale(self.mean, self.std),
        )  # fmt: skip


def build_again(spec: ClipClassesSpec, folder: Path) -> nn.Module:
    """Returns a run's classifier, for its weights to be loaded.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
    """
    about = spec.pretrained
    if about is None:
        return spec.build()
    head = StandardizedLinear(about["num_features"], len(spec.classes))
    return FineTuned(FrameTrunk(trunk_again(about, folder)), head, HEAD)


def load_classifier_of_clips(spec: ClipClassesSpec, folder: Path) -> nn.Module:
    """Returns a run's classifier with its weights.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
        CheckpointError: the weights are missing, damaged or another network's.
    """
    codes = [] if spec.pretrained is None else codes_of(spec.pretrained["skeleton"])
    return load_trained(lambda: build_again(spec, folder), folder, codes)


def predict_frames(
    model: nn.Module, frames: Tensor, device: Device, *, precision: str = "fp32"
) -> Tensor:
    """Returns the logits fp32 [B, classes] of clips uint8 [B, T, C, S, S], on the host."""
    model.eval()
    with torch.inference_mode(), device.autocast(precision):
        parts = [model(device.move(part)).float().cpu() for part in frames.split(_AT_ONCE)]
    return torch.cat(parts)
