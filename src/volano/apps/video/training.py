"""Makes a Task from a path and options: what is trained, and on which clips."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from volano.apps.application import Application, Fitted
from volano.apps.options import Options
from volano.apps.shared_options import batch_in_words
from volano.apps.video.augment import ClipAugmentation
from volano.apps.video.clip_sets import clips_in_words, read_clips
from volano.apps.video.flow import FrameFlow
from volano.apps.video.model_spec import VideoSpec, make_network
from volano.apps.video.options import VideoOptions
from volano.apps.video.pixels import pixel_statistics
from volano.apps.video.recipe import (
    TRANSFORMER_FROM_VIEWS,
    VideoRecipe,
    choose_recipe,
    network_shape,
    parameter_groups,
)
from volano.data import Arrays, Fault
from volano.data.sources import (
    CUT,
    SPLITS_NAME,
    TEST,
    TRAIN,
    ClipFormat,
    Clips,
    ClipSets,
    SplitRecord,
    bouncing_digits,
)
from volano.device import Device
from volano.running.checks import check_data_is_there
from volano.running.time_limit import TimeLimit
from volano.task import Task, trapezoid
from volano.training import MuonAdamW, RunFolder

_DEFAULT_FRAMES = 16
# Generated clips for the final figures: four times the features of which the covariance is taken.
NUM_GENERATED = 128
# Clips looked at by an evaluation during the run; the final figures are over all test clips.
NUM_VALID = 128


@dataclass(frozen=True, kw_only=True)
class VideoTraining(Application):
    """The clips and a model to train on them; :meth:`task` makes the Task for a number of steps.

    Attributes:
        spec: the description of the model.
        sets: clips to train on and to test on.
        flip: whether clips are mirrored.
    """

    kind: ClassVar[str] = "video"
    options_type: ClassVar[type[Options]] = VideoOptions
    sample_minutes: ClassVar[float] = 1.5
    final_metric: ClassVar[str] = "psnr_first_frame"
    data_name: ClassVar[str] = "clips"

    options: VideoOptions
    spec: VideoSpec
    sets: ClipSets
    flip: bool
    origin: str
    is_held_out: bool
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]

    @classmethod
    def read(cls, options: VideoOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Reads the clips and finds out what the recipe needs to know."""
        return cls._of(options)

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads the clips of a run again, each on its side.

        Raises:
            UsageError: the clips are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        check_data_is_there(options.path, cls.data_name)
        spec = VideoSpec.of_run(folder)
        return cls._of(options, record, None if record is None else spec.clip_format)

    @classmethod
    def _of(
        cls,
        options: VideoOptions,
        recorded: SplitRecord | None = None,
        clip_format: ClipFormat | None = None,
    ) -> Self:
        num_frames = options.num_frames or _DEFAULT_FRAMES
        if options.path is None:
            sets = bouncing_digits(num_frames=num_frames)
        else:
            sets = read_clips(
                options, clip_format, num_frames=num_frames, size=options.image_size,
                recorded=recorded,
            )  # fmt: skip
        train = sets.train
        mean, std = pixel_statistics(train.frames, train.lengths)
        network = options.network or "unet"
        counts = torch.bincount(train.labels, minlength=len(train.classes))
        shares = tuple(round(value, 6) for value in (counts / counts.sum()).tolist())
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
            class_shares=shares if train.classes else (),
            mean=mean,
            std=std,
            fit=options.fit or CUT,
        )
        return cls(
            options=options,
            spec=spec,
            sets=sets,
            flip=options.flip == "yes",
            origin=sets.origin,
            is_held_out=sets.is_held_out,
            faults=sets.faults,
            notices=_notices_of(sets, options),
        )

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002
        """Writes the description of the model, and which clip is in which split."""
        folder.write_json(self.spec.file, self.spec.to_json())
        if self.sets.splits is not None:
            folder.write_json(SPLITS_NAME, self.sets.splits.to_json())

    def recipe_of(self, num_steps: int) -> VideoRecipe:
        return choose_recipe(
            num_train=len(self.sets.train),
            num_steps=num_steps,
            batch_size=self.options.batch_size,
            network=self.spec.network,
        )

    def steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * (len(self.sets.train) // self.recipe_of(1).batch_size)))

    def with_network(self, network: str) -> Self:
        """The same with another network."""
        shape = network_shape(network, self.spec.size)
        return dataclasses.replace(
            self, spec=dataclasses.replace(self.spec, network=network, **shape)
        )

    def task(self, num_steps: int, recipe: VideoRecipe | None = None) -> Task:
        spec, recipe, train = self.spec, recipe or self.recipe_of(num_steps), self.sets.train
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
            valid=Arrays(_rows(self.sets.test, NUM_VALID)),
            augment=ClipAugmentation(num_frames=spec.num_frames, flip=self.flip),
            optimizer=MuonAdamW,
            parameter_groups=functools.partial(
                parameter_groups, matrix_lr=recipe.matrix_lr, rest_lr=recipe.rest_lr
            ),
            schedule=trapezoid(),
            ema_decay=recipe.ema_decay,
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=self.evaluation_interval(num_steps, recipe),
            seed=self.options.seed,
        )

    def fit_epochs(self, limit: TimeLimit, epochs: float) -> Fitted:
        """Finds the network and the plan for a number of passes over the clips."""
        application, reason = self.with_network_for(limit.planning.place, self.steps_in(epochs))
        fitted = super(VideoTraining, application).fit_epochs(limit, epochs)
        return dataclasses.replace(fitted, reasons=(reason,))

    def with_network_for(self, place: Device, num_steps: int) -> tuple[Self, str]:
        """Returns the same with the network for a run of so many steps, and why it is that one."""
        if self.options.network is not None:
            return self, f"network={self.options.network}: as asked"
        views = num_steps * self.recipe_of(num_steps).batch_size
        if place.is_cpu:
            return self, "network=unet: on the CPU it learns motion soonest"
        if views < TRANSFORMER_FROM_VIEWS:
            return (
                self,
                f"network=unet: {views:,} clips will be seen, under {TRANSFORMER_FROM_VIEWS:,}",
            )
        reason = (
            f"network=transformer: {views:,} clips could be seen by the U-Net, which is "
            "enough for the larger one"
        )
        return self.with_network("transformer"), reason

    def resolved(self, num_steps: int) -> dict[str, Any]:
        """Implements :meth:`Application.resolved`; the network is chosen by then."""
        return {**super().resolved(num_steps), "network": self.spec.network}


def _notices_of(sets: ClipSets, options: VideoOptions) -> tuple[str, ...]:
    """Returns what a person should know of the clips."""
    said, classes = [*sets.notices], sets.train.classes
    if sets.splits is not None:
        number = {name: label for label, name in enumerate(classes)}
        labels = {
            split: [number.get(one.label, 0) for one in sets.splits[split]]
            for split in (TRAIN, TEST)
        }
        said.insert(0, clips_in_words(sets, labels))
    said += batch_in_words(options.batch_size, len(sets.train), "clips")
    if options.flip != "yes":
        said.append(
            "flip=no: a model of mirrored clips would make mirrored clips; say flip=yes if that is "
            "welcome"
        )
    return tuple(said)


def _rows(clips: Clips, count: int) -> tuple[torch.Tensor, ...]:
    rows = torch.linspace(0, len(clips) - 1, min(count, len(clips))).round().long()
    return clips.frames[rows], clips.lengths[rows], clips.labels[rows]
