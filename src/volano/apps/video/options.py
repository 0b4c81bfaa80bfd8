"""The options of the video application, and of every training on clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from volano.apps.options import MOST_SEED, DeclaredOptions, Options, option
from volano.apps.shared_options import fit, from_option, held_out_by, num_evaluations
from volano.errors import UsageError

NETWORKS = ("unet", "transformer")
METHODS = ("euler", "heun")
FLIPS = ("auto", "yes", "no")
# Frames that stand for longer than ten seconds are no clip.
_LEAST_FPS, _MOST_FPS = 0.1, 240


def frames(usual: int, *, at_least: int) -> Any:
    """Returns the field of an option that says how many frames of a clip a network sees."""
    return option(
        None, f"Frames that the model sees at once; default {usual}.",
        at_least=at_least, at_most=64, unit="frames", flag="--frames",
    )  # fmt: skip


def _fps(help: str) -> Any:
    return option(None, help, at_least=_LEAST_FPS, at_most=_MOST_FPS, unit="frames a second")


@dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """The options of every training on clips."""

    image_size: int | None = option(
        None, "Size that clips are decoded to, in pixels a side.",
        at_least=8, at_most=256, multiple_of=8, unit="px",
    )  # fmt: skip
    fit: str | None = fit()
    fps: float | None = _fps("Frames a second to decode to.")
    batch_size: int | None = option(None, "Clips a step.", at_least=1)
    flip: str = option("auto", "Mirror clips: auto is no.", choices=FLIPS)
    held_out_by: str = held_out_by()
    num_evaluations: int | None = num_evaluations()


@dataclass(frozen=True, kw_only=True)
class VideoOptions(ClipOptions):
    """The options of training a model of clips."""

    path: str | None = option(
        None, "A folder of clips; without it, the embedded sample.", is_path=True
    )
    classify: bool = option(False, "Train a classifier of clips instead.", is_kept=False)
    from_: str | None = from_option("an image network, with `classify`")
    network: str | None = option(
        None, "Network; default: chosen by how many clips it will see.", choices=NETWORKS
    )
    num_frames: int | None = frames(16, at_least=4)
    num_generated: int | None = option(
        None, "Clips generated for the final figures.", at_least=0, is_resolved=True
    )
    feature_steps: int | None = option(
        None, "Steps of the feature net.", at_least=0, is_resolved=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.from_ is not None:
            raise UsageError(
                "`from_` of the video application must come with `classify`", got=self.from_
            )
        asked = (self.image_size, self.fps, None if self.fit == "cut" else self.fit)
        if self.path is None and asked != (None, None, None):
            raise UsageError(
                "`image_size`, `fps` and `fit` must come with clips of your own, which are decoded",
                got="one with the embedded sample",
            )


@dataclass(frozen=True, kw_only=True)
class VideoGenerationOptions(DeclaredOptions):
    """The options of making clips with a trained model."""

    clips: int = option(16, "Clips to make.", at_least=1, at_most=10_000)
    steps: int = option(
        20, "Steps of the integration from noise to pictures.", at_least=1, at_most=1000
    )
    frames: int | None = option(
        None,
        "Frames of a clip; more than the model sees at once are made window by window.",
        at_least=1,
        at_most=10_000,
    )
    first_frames: str | None = option(None, "A clip or picture to continue.", is_path=True)
    class_name: str | None = option(None, "One of the run's classes.", flag="--class")
    guidance: float | None = option(
        None, "Guidance towards the class; 1 is none.", at_least=0, at_most=20
    )
    method: str = option("euler", "Method of the integration.", choices=METHODS)
    fps: float | None = _fps("Frames a second of the files.")
    seed: int = option(
        0,
        "Seed of the noise; clip k is the same however many are made.",
        at_least=0,
        at_most=MOST_SEED,
    )
    out: str | None = option(
        None, "New folder to write; without it, the next in the run's folder.", is_path=True
    )
