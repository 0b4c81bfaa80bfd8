"""From a path and some options to a Task: what is trained, and on which clips."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from volano.apps.video.augment import ClipAugmentation
from volano.apps.video.flow import FrameFlow
from volano.apps.video.model_spec import NETWORKS, VideoSpec, make_network
from volano.apps.video.pixels import pixel_statistics
from volano.apps.video.recipe import VideoRecipe, choose_recipe, network_shape, parameter_groups
from volano.data import Arrays
from volano.data.sources import Clips, ClipSets, bouncing_digits, read_clip_folder
from volano.errors import UsageError
from volano.task import Task, trapezoid
from volano.training import MuonAdamW

DEFAULT_FRAMES = 16
# Frames that stand for longer than ten seconds are no clip.
LEAST_FPS = 0.1
# Generated clips for the final figures: four times the features of which the covariance is taken.
NUM_GENERATED = 128
_FLIPS = ("auto", "yes", "no")
# Clips looked at by an evaluation during the run; the final figures are over all test clips.
_NUM_VALID = 128


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What a person may say, all of it optional. Resolved options (``num_steps``, ``network``) make the same Task
    again.

    Attributes:
        path: a folder of clips; None is the embedded sample.
        epochs: passes over the training clips; None leaves the choice to minutes.
        num_steps: optimizer steps; goes before ``epochs``.
        network: unet or transformer; None chooses.
        num_frames: of the window; None is 16.
        image_size: pixels a side to decode to; None chooses.
        fps: frames a second to decode to; None chooses.
        batch_size: clips per step; None leaves it to the recipe.
        flip: whether to mirror clips: auto is no.
        seed: of everything.
        num_generated: clips that are generated for the final figures; 0 leaves these figures out, None is 128.
        feature_steps: of the feature net's training; None is 120.
    """

    path: str | None = None
    epochs: float | None = None
    num_steps: int | None = None
    network: str | None = None
    num_frames: int | None = None
    image_size: int | None = None
    fps: float | None = None
    batch_size: int | None = None
    flip: str = "auto"
    seed: int = 0
    num_generated: int | None = None
    feature_steps: int | None = None

    def __post_init__(self) -> None:
        if self.network is not None and self.network not in NETWORKS:
            raise UsageError(f"--network is one of {', '.join(NETWORKS)}", got=repr(self.network))
        if not 0 <= self.seed < 2**63:
            raise UsageError("--seed is a whole number from 0 to 2**63 - 1", got=self.seed)
        if self.flip not in _FLIPS:
            raise UsageError(f"--flip is one of {', '.join(_FLIPS)}", got=repr(self.flip))
        if self.epochs is not None and not 0 < self.epochs < float("inf"):
            raise UsageError("--epochs is a number above 0", got=self.epochs)
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError("--batch-size is a whole number above 0", got=self.batch_size)
        if self.num_frames is not None and not 4 <= self.num_frames <= 64:
            raise UsageError("--frames lies between 4 and 64", got=self.num_frames)
        if self.image_size is not None and (not 8 <= self.image_size <= 256 or self.image_size % 8):
            raise UsageError("--image-size of clips is a multiple of 8 between 8 and 256 pixels", got=self.image_size)
        if self.fps is not None and not LEAST_FPS <= self.fps <= 240:
            raise UsageError("--fps lies between 0.1 and 240 frames a second", got=self.fps)
        if self.path is None and (self.image_size, self.fps) != (None, None):
            raise UsageError(
                "--image-size and --fps are for clips that are decoded", got="one with the embedded sample"
            )

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class VideoApplication:
    """Clips and a model to train on them; :meth:`task` makes the Task for a number of steps.

    Attributes:
        options: as given.
        spec: of the model.
        sets: clips to train on and to test on.
        flip: whether clips are mirrored.
        notices: what a person should know.
    """

    options: VideoOptions
    spec: VideoSpec
    sets: ClipSets
    flip: bool
    notices: tuple[str, ...]

    def recipe(self, num_steps: int) -> VideoRecipe:
        """The recipe for so many steps."""
        return choose_recipe(
            num_train=len(self.sets.train),
            num_steps=num_steps,
            batch_size=self.options.batch_size,
            network=self.spec.network,
        )

    def steps_in(self, epochs: float) -> int:
        """Optimizer steps in so many passes."""
        return max(1, round(epochs * (len(self.sets.train) // self.recipe(1).batch_size)))

    def with_network(self, network: str) -> VideoApplication:
        """The same with another network."""
        shape = network_shape(network, self.spec.size)
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, network=network, **shape))

    def recipe_of(self, num_steps: int) -> VideoRecipe:
        """See :meth:`recipe`."""
        return self.recipe(num_steps)

    def task(self, num_steps: int, recipe: VideoRecipe | None = None) -> Task:
        """The Task for a number of steps; ``recipe``: another than the one for that length."""
        spec, recipe, train = self.spec, recipe or self.recipe(num_steps), self.sets.train
        return Task(
            name="video",
            model=functools.partial(make_network, spec),
            objective=FrameFlow(
                num_frames=spec.num_frames,
                context=spec.context,
                num_classes=len(spec.classes),
                velocity=spec.network == "transformer",
            ),
            data=Arrays((train.frames, train.lengths, train.labels)),
            valid=Arrays(_rows(self.sets.test, _NUM_VALID)),
            augment=ClipAugmentation(num_frames=spec.num_frames, flip=self.flip),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(parameter_groups, matrix_lr=recipe.matrix_lr, rest_lr=recipe.rest_lr),
            schedule=trapezoid(),
            ema_decay=recipe.ema_decay,
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // recipe.num_evaluations))}st",
            seed=self.options.seed,
        )


def read_video_application(options: VideoOptions) -> VideoApplication:
    """Reads the clips and finds out what the recipe needs to know.

    Raises:
        UsageError: the path does not exist.
        DataError: what lies there cannot be trained on.
    """
    num_frames = options.num_frames or DEFAULT_FRAMES
    if options.path is None:
        sets = bouncing_digits(num_frames=num_frames)
    else:
        sets = read_clip_folder(
            Path(options.path), num_frames=num_frames, size=options.image_size, fps=options.fps, seed=options.seed
        )
    train = sets.train
    notices = list(sets.notices)
    if train.classes:
        counts = torch.bincount(train.labels, minlength=len(train.classes))
        shares = tuple(round(value, 6) for value in (counts / counts.sum()).tolist())
        notices.append(f"classes by sub-folder: {', '.join(train.classes[:6])}{', ...' * (len(train.classes) > 6)}")
    else:
        shares = ()
    if options.batch_size is not None and options.batch_size > len(train):
        notices.append(f"batch_size={len(train)}: there are no more clips to train on")
    if options.flip != "yes":
        notices.append("flip=no: a model of mirrored clips would make mirrored clips; --flip yes if that is welcome")
    mean, std = pixel_statistics(train.frames, train.lengths)
    network = options.network or "unet"
    channels, size = train.frames.shape[2], train.frames.shape[-1]
    spec = VideoSpec(
        network=network,
        **network_shape(network, size),
        num_frames=num_frames,
        context=num_frames // 2,
        channels=channels,
        size=size,
        fps=sets.fps,
        classes=train.classes,
        class_shares=shares,
        mean=mean,
        std=std,
    )
    return VideoApplication(options=options, spec=spec, sets=sets, flip=options.flip == "yes", notices=tuple(notices))


def _rows(clips: Clips, count: int) -> tuple[torch.Tensor, ...]:
    rows = torch.linspace(0, len(clips) - 1, min(count, len(clips))).round().long()
    return clips.frames[rows], clips.lengths[rows], clips.labels[rows]
