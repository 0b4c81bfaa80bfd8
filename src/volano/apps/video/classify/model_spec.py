"""The description of a trained classifier of clips, from which it is built and fed again; kept in
``video.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from volano.apps.dimensions import check_dimensions, check_figures
from volano.apps.image.fine_tuning.network import codes_of, trunk_again
from volano.apps.video.classify.network import ClipClassifier, FrameTrunk
from volano.apps.video.pixels import PixelScale
from volano.data.sources import CUT, FITS, ClipFormat
from volano.device import Device
from volano.errors import CheckpointError
from volano.pretrained.fine_tuned import HEAD, FineTuned, StandardizedLinear
from volano.training import WEIGHTS, build_and_load, load_weights

SCHEMA_VERSION = 1
GOAL = "classes"
_BOUNDS = {
    "width": (4, 1024),
    "num_frames": (1, 1024),
    "channels": (1, 4),
    "size": (1, 1024),
}
_MOST_FPS = 1000
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ClipClassesSpec:
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
    def clip_format(self) -> ClipFormat:
        """The format to which files are decoded."""
        return ClipFormat(channels=self.channels, size=self.size, fps=self.fps, fit=self.fit)

    def to_json(self) -> dict[str, Any]:
        """Returns all fields, the goal and the schema's version."""
        return {"schema_version": SCHEMA_VERSION, "goal": GOAL, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClipClassesSpec:
        """The inverse of :meth:`to_json`.

        Raises:
            CheckpointError: another schema version or goal, or fields that do not belong.
        """
        fields: dict[str, Any] = dict(value)
        head = fields.pop("schema_version", None), fields.pop("goal", None)
        if head != (SCHEMA_VERSION, GOAL):
            raise CheckpointError(
                f"video.json must describe a classifier, schema version {SCHEMA_VERSION}", got=head
            )
        check_dimensions(fields, _BOUNDS, "video.json")
        check_figures(fields, dict.fromkeys(("mean", "std"), fields.get("channels")), "video.json")
        try:
            for name in ("classes", "mean", "std"):
                fields[name] = tuple(fields[name])
            fields["classes"] = tuple(map(str, fields["classes"]))
            if fields.get("fit", CUT) not in FITS or not 0 < float(fields["fps"]) <= _MOST_FPS:
                raise ValueError(f"fit={fields.get('fit')!r}, fps={fields['fps']!r}")
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "video.json must describe a classifier of clips", got=error
            ) from error

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
    if spec.pretrained is None or not codes_of(spec.pretrained["skeleton"]):
        return build_and_load(lambda: build_again(spec, folder), folder / WEIGHTS)
    module = build_again(spec, folder)  # which may be code that needs real tensors
    load_weights(module, folder / WEIGHTS)
    return module


def predict_frames(
    model: nn.Module, frames: Tensor, device: Device, *, precision: str = "fp32"
) -> Tensor:
    """Returns the logits fp32 [B, classes] of clips uint8 [B, T, C, S, S], on the host."""
    model.eval()
    with torch.inference_mode(), device.autocast(precision):
        parts = [model(device.move(part)).float().cpu() for part in frames.split(_AT_ONCE)]
    return torch.cat(parts)
