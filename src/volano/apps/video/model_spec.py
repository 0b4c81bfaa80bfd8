"""The description of a trained model of clips, from which its network is built and fed again; kept
in ``video.json``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from volano.apps.model_spec import ModelSpec
from volano.apps.video.networks.transformer import Transformer
from volano.apps.video.networks.unet import UNet
from volano.apps.video.pixels import PixelScale
from volano.data.sources import CUT, ClipFormat


@dataclass(frozen=True, kw_only=True)
class VideoSpec(ModelSpec):
    """A model of clips, without its weights.

    Attributes:
        network: ``"unet"`` or ``"transformer"``.
        width: the width of the network, see there.
        depth: blocks of the transformer; 0 with a U-Net.
        patch: pixels of a transformer's patch; 0 with a U-Net.
        num_frames: T, the window.
        context: frames that are given in evaluation, and from window to window of a longer rollout.
        channels: 1 or 3.
        size: pixels a side.
        fps: frames a second.
        classes: the class names, empty for none.
        class_shares: the share of the training clips, one for each class.
        mean, std: of each channel's bytes over the training clips.
        fit: see ``ClipFormat``.
    """

    file = "video.json"
    what = "a model of clips"
    bounds = {  # noqa: RUF012
        "width": (8, 8192), "depth": (0, 256), "patch": (0, 256), "num_frames": (1, 1024),
        "context": (0, 1024), "channels": (1, 4), "size": (1, 1024),
    }  # fmt: skip

    network: str
    width: int
    depth: int
    patch: int
    num_frames: int
    context: int
    channels: int
    size: int
    fps: float
    classes: tuple[str, ...]
    class_shares: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    # No part of the model: the clips themselves are what a task's description tells.
    fit: str = field(default=CUT, repr=False)

    @property
    def clip_format(self) -> ClipFormat:
        """The format to which files are decoded."""
        return ClipFormat(channels=self.channels, size=self.size, fps=self.fps, fit=self.fit)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """The shape of a frame, (C, S, S)."""
        return (self.channels, self.size, self.size)

    @property
    def scale(self) -> PixelScale:
        """Returns a new module from bytes to what the network sees."""
        return PixelScale(self.mean, self.std)


def make_network(spec: VideoSpec) -> nn.Module:
    """The spec's network with fresh weights; see ``UNet`` and ``Transformer`` for what it takes and
    gives."""
    shared: dict[str, Any] = {
        "num_frames": spec.num_frames,
        "channels": spec.channels,
        "num_classes": len(spec.classes),
        "width": spec.width,
        "scale": spec.scale,
    }
    if spec.network == "unet":
        return UNet(**shared)
    return Transformer(**shared, size=spec.size, depth=spec.depth, patch=spec.patch)
