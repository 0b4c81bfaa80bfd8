"""Makes a Task from clips in classes: what is trained, and on which clips."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from volano.apps.application import Application
from volano.apps.export import SAMPLES
from volano.apps.image.fine_tuning.network import described, network_of
from volano.apps.image.fine_tuning.recipe import FineTuningRecipe, choose_fine_tuning
from volano.apps.image.fine_tuning.task_fields import fine_tuning_fields
from volano.apps.image.network import parameter_groups
from volano.apps.image.objective import Classification, balanced_weights
from volano.apps.image.options import ImageOptions
from volano.apps.options import Options
from volano.apps.shared_options import batch_in_words
from volano.apps.video.classify.augment import KEPT_FOR_EACH, ClipViews, looked_at
from volano.apps.video.classify.begin import begin_clips
from volano.apps.video.classify.model_spec import GOAL, ClipClassesSpec
from volano.apps.video.classify.network import FrameNetwork
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.apps.video.classify.recipe import ClipClassRecipe, choose_recipe
from volano.apps.video.clip_sets import clips_in_words, read_clips
from volano.apps.video.pixels import pixel_statistics
from volano.data import Arrays, Fault
from volano.data.sources import (
    CUT,
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    ClipFormat,
    Clips,
    ClipSets,
    SplitRecord,
    hold_out_rows,
)
from volano.device import Device
from volano.errors import CheckpointError
from volano.pretrained.frozen_features import FineTuningStart
from volano.pretrained.heads import about_network
from volano.pretrained.linear_probe import PROBE
from volano.pretrained.network_references import HEAD
from volano.running.checks import check_data_is_there
from volano.task import Task, linear
from volano.training import MuonAdamW, RunFolder, save_tensors

_DEFAULT_FRAMES = 8
_WIDTH = 24
# Clips that an evaluation looks at; the final figures are of all test clips.
_NUM_VALID, _NUM_SAMPLES = 256, 8


@dataclass(frozen=True, kw_only=True)
class ClipClassifyTraining(Application):
    """The clips in classes and a classifier to train on them; :meth:`task` makes the Task for a
    number of steps.

    Attributes:
        spec: the description of the classifier.
        train: clips to train on.
        valid: clips evaluated during the run: some of the test clips, or with ``keep`` best some
            that are neither trained on nor tested.
        test: clips of the final figures.
        splits: which file is in which split.
        network: the pretrained network of images that ``options.from_`` names.
        start: the solved head with which it is trained; None: solved when it is needed.
    """

    kind: ClassVar[str] = "video"
    options_type: ClassVar[type[Options]] = ClipClassifyOptions
    final_metric: ClassVar[str] = "test_accuracy"
    study_metric: ClassVar[tuple[str, str]] = ("accuracy", "maximize")
    data_name: ClassVar[str] = "clips"

    options: ClipClassifyOptions
    spec: ClipClassesSpec
    train: Clips
    valid: Clips
    test: Clips
    splits: SplitRecord
    is_held_out: bool
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    network: FrameNetwork | None = None
    start: FineTuningStart | None = field(default=None, repr=False)

    @classmethod
    def read(cls, options: ClipClassifyOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Reads the clips, and splits them if the source does not."""
        return cls._of(options)

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads the clips of a run again, each on its side.

        Raises:
            CheckpointError: the folder does not say which they were.
            UsageError: the clips are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        check_data_is_there(options.path, cls.data_name)
        if record is None:
            raise CheckpointError(f"{SPLITS_NAME} of a run must be there", got=str(folder.path))
        spec = ClipClassesSpec.of_run(folder)
        return cls._of(options, record, spec.clip_format, FineTuningStart.of_run(folder.path))

    @classmethod
    def _of(
        cls,
        options: ClipClassifyOptions,
        recorded: SplitRecord | None = None,
        clip_format: ClipFormat | None = None,
        start: FineTuningStart | None = None,
    ) -> Self:
        network = _network_of(options)
        own_fit = None if network is None else network.images.preprocessing.fit
        options = dataclasses.replace(options, fit=options.fit or own_fit or CUT)
        num_frames = options.num_frames or _DEFAULT_FRAMES
        own_size = None if network is None else network.images.preprocessing.size
        sets = read_clips(
            options, clip_format, num_frames=KEPT_FOR_EACH * num_frames,
            size=options.image_size or own_size, recorded=recorded, whole=True,
        )  # fmt: skip
        train, valid = _with_validation(sets, options)
        channels, size = train.frames.shape[2], train.frames.shape[-1]
        mean, std = pixel_statistics(train.frames, train.lengths)
        spec = ClipClassesSpec(
            classes=train.classes, num_frames=num_frames, channels=channels, size=size,
            fps=sets.fps, mean=mean, std=std, width=_WIDTH, fit=options.fit or CUT,
            pretrained=None if network is None else described(network.images, HEAD),
        )  # fmt: skip
        return cls(
            options=options,
            spec=spec,
            train=train,
            valid=valid,
            test=sets.test,
            splits=_splits_of(sets),
            is_held_out=sets.is_held_out,
            origin=sets.origin,
            faults=sets.faults,
            notices=_notices_of(sets, options, train, valid, network),
            network=network,
            start=start,
        )

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002
        """Writes the description of the classifier, which clip is in which split, and clips with
        which an export is compared."""
        folder.write_json(self.spec.file, self.spec.to_json())
        folder.write_json(SPLITS_NAME, self.splits.to_json())
        samples = looked_at(self.train.frames[:_NUM_SAMPLES])
        # Two at least, or a program would be made for a single one.
        samples = samples if len(samples) > 1 else samples.expand(2, -1, -1, -1, -1)
        save_tensors({"clips": samples.contiguous()}, folder.path / SAMPLES)
        if self.network is not None:
            self.begun.probe.save(folder.path / PROBE, save_tensors)

    @functools.cached_property
    def begun(self) -> FineTuningStart:
        """The solved head of the pretrained network, found now if it was not yet."""
        return self.start or self.begin(Device("cpu"))

    def solved_on(self, device: Device) -> Self:
        """Implements :meth:`Application.solved_on`."""
        if self.network is None or self.start is not None:
            return self
        return dataclasses.replace(self, start=self.begin(device))

    def begin(self, device: Device) -> FineTuningStart:
        """Solves a head of the pretrained network; see ``begin.py``."""
        assert self.network is not None
        is_balanced = self.class_weights is not None
        return begin_clips(
            self.network, self.train, device, seed=self.options.seed, is_balanced=is_balanced
        )

    def goal(self) -> dict[str, Any]:
        return {"goal": GOAL}

    def about_keeping(self) -> tuple[str, ...]:
        """Implements :meth:`Application.about_keeping`: no test clip has a say."""
        return (f"keep=best: the best by {len(self.valid):,} clips that are not trained on",)

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class's clips, or None for equal ones."""
        return balanced_weights(self.train.labels, len(self.spec.classes))

    @property
    def network_in_words(self) -> str:
        """The network and its batch."""
        name = "clip" if self.network is None else self.network.images.reference
        return f"{name} network at {self.recipe(1.0).batch_size} clips a step"

    def recipe(self, epochs: float) -> ClipClassRecipe | FineTuningRecipe:
        """The recipe for so many passes over the training clips."""
        shared = {"num_train": len(self.train), "batch_size": self.options.batch_size}
        if self.network is None:
            return choose_recipe(**shared, size=self.spec.size, epochs=epochs)
        return choose_fine_tuning(HEAD, **shared, resolution=self.spec.size, epochs=epochs)

    def steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * (len(self.train) // self.recipe(epochs).batch_size)))

    def recipe_of(self, num_steps: int) -> ClipClassRecipe | FineTuningRecipe:
        return self.recipe(num_steps / self.steps_in(1.0))

    def task(self, num_steps: int, recipe: Any = None) -> Task:
        recipe = recipe or self.recipe_of(num_steps)
        # A frozen network's features can be kept if the same frames are looked at each time.
        frames = self.train.frames if self.network is None else looked_at(self.train.frames)
        return Task(
            name="video",
            data=Arrays((frames, self.train.labels)),
            valid=Arrays((looked_at(self.valid.frames), self.valid.labels)),
            **self._fields(recipe),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=self.evaluation_interval(num_steps, recipe),
            seed=self.options.seed,
        )

    def _fields(self, recipe: Any) -> dict[str, Any]:
        """The fields of the Task that differ from network to network."""
        flip = self.options.flip == "yes"
        objective = Classification(
            label_smoothing=recipe.label_smoothing, class_weights=self.class_weights
        )
        if self.network is not None:
            return fine_tuning_fields(
                self.network, HEAD, recipe, self.begun.probe,
                num_classes=len(self.spec.classes), flip=flip, objective=objective,
            )  # fmt: skip
        return {
            "model": functools.partial(ClipClassesSpec.build, self.spec),
            "objective": objective,
            "augment": ClipViews(flip=flip, translate=recipe.translate),
            "optimizer": MuonAdamW,
            "parameter_groups": functools.partial(
                parameter_groups, kernel_lr=recipe.kernel_lr, rest_lr=recipe.rest_lr
            ),
            "schedule": linear(),
        }


def _network_of(options: ClipClassifyOptions) -> FrameNetwork | None:
    images = network_of(ImageOptions(from_=options.from_))
    return None if images is None else FrameNetwork(images=images)


def _with_validation(sets: ClipSets, options: ClipClassifyOptions) -> tuple[Clips, Clips]:
    """Returns clips to train on and to look at; with ``keep`` best the latter are held out of the
    former, by their content, so that no test clip has a say."""
    if options.keep != "best":
        count = min(_NUM_VALID, len(sets.test))
        return sets.train, sets.test.select(np.linspace(0, len(sets.test) - 1, count).round())
    assert sets.splits is not None
    kept, held = hold_out_rows(
        [member.key for member in sets.splits[TRAIN]], sets.train.labels.tolist(),
        sets.train.classes, seed=options.seed + 1, what="clips to train on",
    )  # fmt: skip
    return sets.train.select(kept), sets.train.select(held)


def _splits_of(sets: ClipSets) -> SplitRecord:
    assert sets.splits is not None
    return sets.splits


def _notices_of(
    sets: ClipSets,
    options: ClipClassifyOptions,
    train: Clips,
    valid: Clips,
    network: FrameNetwork | None,
) -> tuple[str, ...]:
    own = {VALID: valid} if options.keep == "best" else {}
    parts = {TRAIN: train, **own, TEST: sets.test}
    said = [clips_in_words(sets, {split: part.labels.tolist() for split, part in parts.items()})]
    if network is not None:
        said += about_network(network.images, train.classes)
    said += batch_in_words(options.batch_size, len(train), "clips")
    if network is not None and options.flip == "yes":
        said.append("flip=yes does nothing: a frozen network looks at the clips as they are")
    elif network is None and options.flip == "auto":
        said.append("flip=no: a mirrored clip may be of another class; say flip=yes if none can be")
    return (*said, *sets.notices)
