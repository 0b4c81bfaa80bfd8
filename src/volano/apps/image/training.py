"""Makes a Task from a path and options: what is trained, and on which images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from volano.apps.application import Application
from volano.apps.classification import classes_in_words
from volano.apps.image.augment import Augmentation
from volano.apps.image.flip import flip_is_label_preserving
from volano.apps.image.model_spec import (
    ClassifierSpec,
    check_classifier,
    make_classifier,
    own_model_of,
)
from volano.apps.image.network import parameter_groups
from volano.apps.image.objective import Classification, balanced_weights
from volano.apps.image.options import ImageOptions
from volano.apps.image.recipe import ImageRecipe, choose_recipe
from volano.apps.options import Options
from volano.data import Fault
from volano.data.sources import (
    BY_CONTENT,
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    ImageFiles,
    ImageSets,
    LabelledImages,
    SplitMember,
    SplitRecord,
    copies_of_training,
    hold_out,
    picked,
    read_image_sets,
)
from volano.device import Device
from volano.errors import CheckpointError, DataError
from volano.running.checks import check_data_is_there
from volano.task import Task, cosine, linear
from volano.training import MuonAdamW, RunFolder

# Images whose patches' statistics whiten the stem (airbench94 takes 5,000).
_NUM_WHITENING_IMAGES = 5000
_NUM_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class ImageTraining(Application):
    """The images and a classifier to train on them; :meth:`task` makes the Task for a number of
    steps.

    Attributes:
        options: the options with ``flip`` resolved.
        spec: the description of the classifier.
        train: images to train on.
        valid: images evaluated during the run.
        test: images of the final figures; the same as ``valid`` if the source has one split
            only.
        is_held_out: whether ``test`` was split off by Volano.
        origin: the source of the images, in words.
        faults: files that could not be read, left out.
        notices: texts that a person should read.
        own_model: the function that ``options.model`` names.
        patches: training images uint8 [n, channels, height, width] whose statistics whiten the
            stem.
    """

    kind: ClassVar[str] = "image"
    options_type: ClassVar[type[Options]] = ImageOptions
    sample_minutes: ClassVar[float] = 0.5
    final_metric: ClassVar[str] = "test_accuracy"
    study_metric: ClassVar[tuple[str, str]] = ("accuracy", "maximize")
    data_name: ClassVar[str] = "images"

    options: ImageOptions
    spec: ClassifierSpec
    train: LabelledImages
    valid: LabelledImages
    test: LabelledImages
    is_held_out: bool
    origin: str
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    own_model: Callable[..., Any] | None
    patches: Tensor = field(repr=False)

    @classmethod
    def read(cls, options: ImageOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Reads the images, splits them if the source does not, and finds out what the recipe needs
        to know."""
        path = None if options.path is None else Path(options.path)
        sets = read_image_sets(
            path,
            size=options.image_size,
            in_files=options.in_files,
            pixel_range=options.pixel_range,
            fit=options.fit,
        )
        return cls._of(options, _with_cache(sets, options.image_cache))

    @classmethod
    def from_run(cls, folder: RunFolder) -> Self:
        """Reads the images of a run again, each on its side.

        Raises:
            CheckpointError: images that the run was trained on are missing.
            UsageError: the images are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        if record is None:
            return super().from_run(folder)
        sets = _with_cache(_read_again(options, folder), options.image_cache)
        found = _recorded(sets, record)
        for split in (TRAIN, VALID, TEST):
            if len(found[split]) < len(record[split]):
                raise CheckpointError(
                    "The images of a run must be there to go on with it",
                    got=f"{options.path}: {record.changes(_members(sets), 'images')[0]}",
                    remedy="Put them back, or train anew",
                )
        return cls._of(options, sets, found)

    @classmethod
    def test_of_run(cls, folder: RunFolder) -> tuple[LabelledImages, str, tuple[str, ...]]:
        """Returns a run's own test images, their origin, and notices of what has changed since.

        Raises:
            DataError: none of them is there.
            UsageError: the images are no longer there.
        """
        options, record = cls.options_of(folder), cls.splits_of(folder)
        if record is None:
            again = cls.from_run(folder)
            return again.test, again.origin, ()
        sets = _read_again(options, folder)
        test = picked(_parts(sets), record[TEST], record.classes)
        notices = record.changes(_members(sets), "images")
        faults = [fault for part in _parts(sets) for fault in part.faults]
        if not len(test):
            raise DataError(
                "Some of a run's own test images must be there",
                got=f"none of {len(record[TEST]):,} in {options.path}",
                remedy="Put them back, or name others to evaluate on",
            )
        return test, sets.origin, (*notices, *_fault_notices(faults))

    @classmethod
    def _of(
        cls,
        options: ImageOptions,
        sets: ImageSets,
        recorded: dict[str, LabelledImages] | None = None,
    ) -> Self:
        own_model = own_model_of(options.model)
        if recorded is None:
            train, valid, test, is_held_out = _split(sets, options.seed, options.held_out_by)
        else:
            train, valid, test = (recorded[split] for split in (TRAIN, VALID, TEST))
            is_held_out = sets.test is None and sets.valid is None
        faults = [*sets.faults] + [
            fault
            for part in (sets.train, sets.valid, sets.test)
            if part is not None
            for fault in part.faults
        ]
        parts = {TRAIN: train, **({} if valid is test else {VALID: valid}), TEST: test}
        notices = [
            classes_in_words("images", train.classes, parts, is_held_out=is_held_out),
            *sets.notices,
            *_fault_notices(faults),
            *(_copies_left_out(sets, train, test) if is_held_out and recorded is None else ()),
            *copies_of_training(train.members(), test.members(), "images"),
        ]
        counts = torch.bincount(train.labels, minlength=len(train.classes))
        empty = [train.classes[row] for row in (counts == 0).nonzero()]
        if empty:
            raise DataError(
                "Every class must have readable images to train on",
                got=f"none of {', '.join(empty[:5])}",
            )
        if options.batch_size is not None and options.batch_size > len(train):
            notices.append(f"batch_size={len(train)}: there are no more images to train on")
        known, about = train.sample()
        flip, reason = _decide_flip(options.flip, known, about.labels, options.seed)
        notices.append(f"flip={'yes' if flip else 'no'}: {reason}")
        if balanced_weights(train.labels, len(train.classes)) is not None:
            notices.append(
                f"classes of {int(counts.min())} to {int(counts.max())} images: weighted inversely"
            )
        mean, std = _statistics(known)
        channels, image_size = train.images.shape[1], train.images.shape[-1]
        recipe = choose_recipe(
            num_train=len(train),
            resolution=image_size,
            num_classes=len(train.classes),
            epochs=1.0,
            batch_size=None,
        )
        spec = ClassifierSpec(
            classes=train.classes,
            channels=channels,
            image_size=image_size,
            mean=mean,
            std=std,
            size=None if own_model is not None else options.size or "thin",
            model_reference=options.model,
            flip=flip,
            translate=recipe.tta_translate,
            pixel_range=sets.pixel_range,
            fit=options.fit,
        )
        check_classifier(spec, own_model)
        black, white = sets.pixel_range or (None, None)
        return cls(
            options=dataclasses.replace(
                options,
                flip="yes" if flip else "no",
                in_files=isinstance(sets.train.images, ImageFiles),
                black=black,
                white=white,
            ),
            spec=spec,
            train=train,
            valid=valid,
            test=test,
            is_held_out=is_held_out,
            origin=sets.origin,
            faults=tuple(faults),
            notices=tuple(notices),
            own_model=own_model,
            patches=_patches(known),
        )

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002
        """Writes the description of the classifier, and which image is in which split."""
        folder.write_json("image.json", self.spec.to_json())
        parts = {TRAIN: self.train, TEST: self.test}
        if self.valid is not self.test:
            parts[VALID] = self.valid
        members = {split: part.members() for split, part in parts.items()}
        record = SplitRecord(classes=self.train.classes, parts=members)
        folder.write_json(SPLITS_NAME, record.to_json())

    @property
    def looked_at(self) -> LabelledImages:
        """The validation images that an evaluation looks at."""
        return _some_of(self.valid, self.options.num_valid)

    @property
    def tested(self) -> LabelledImages:
        """The test images that the final test looks at."""
        return _some_of(self.test, self.options.num_test)

    def recipe(self, epochs: float) -> ImageRecipe:
        """The recipe for so many passes over the training images."""
        return choose_recipe(
            num_train=len(self.train),
            resolution=self.spec.image_size,
            num_classes=len(self.spec.classes),
            epochs=epochs,
            batch_size=self.options.batch_size,
        )

    def steps_in(self, epochs: float) -> int:
        """Returns the optimizer steps in so many passes."""
        return max(1, round(epochs * (len(self.train) // self.recipe(epochs).batch_size)))

    @property
    def has_views(self) -> bool:
        """Whether a final test can look at an image more than once, moved or mirrored."""
        return bool(self.spec.flip or self.spec.translate)

    @property
    def size_in_words(self) -> str:
        """The network and its batch."""
        network = self.spec.size or self.spec.model_reference
        return f"{network} network at {self.recipe(1.0).batch_size} images a step"

    def with_batch_size(self, batch_size: int) -> Self:
        """The same with another batch."""
        return dataclasses.replace(
            self, options=dataclasses.replace(self.options, batch_size=batch_size)
        )

    def with_size(self, size: str) -> Self:
        """The same with a network of another size."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, size=size))

    def recipe_of(self, num_steps: int) -> ImageRecipe:
        """The recipe of a run of so many steps."""
        return self.recipe(num_steps / self.steps_in(1.0))

    def task(self, num_steps: int, recipe: ImageRecipe | None = None) -> Task:
        """The Task for a number of steps; ``recipe``: another than the one for that length."""
        labels = self.train.labels
        recipe = recipe or self.recipe_of(num_steps)
        weights = balanced_weights(labels, len(self.spec.classes))
        smoothing = recipe.label_smoothing
        return Task(
            name="image",
            model=functools.partial(make_classifier, self.spec, self.own_model, self.patches),
            objective=Classification(label_smoothing=smoothing, class_weights=weights),
            data=self.train.dataset(),
            valid=self.looked_at.dataset(),
            augment=Augmentation(
                flip=self.spec.flip, translate=recipe.translate, cutout=recipe.cutout
            ),
            **self._optimization(recipe),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // self._num_evaluations(recipe)))}st",
            seed=self.options.seed,
        )

    def fit_trial(
        self, seconds: float, seconds_per_step: Callable[[Task], float], device: Device
    ) -> tuple[Self, float]:
        """Implements :meth:`Application.fit_trial`; the network is thin unless another is asked
        for."""
        del seconds, device
        sized = (
            self.with_size("thin") if self.options.size is None and self.own_model is None else self
        )
        return sized, seconds_per_step(sized.task(1000))

    def resolved(self, num_steps: int) -> dict[str, Any]:
        """Implements :meth:`Application.resolved`; the network's size is chosen by then."""
        return {**super().resolved(num_steps), "size": self.spec.size}

    def _num_evaluations(self, recipe: ImageRecipe) -> int:
        most = self.options.num_evaluations
        return recipe.num_evaluations if most is None else min(most, recipe.num_evaluations)

    def _optimization(self, recipe: ImageRecipe) -> dict[str, Any]:
        if self.own_model is None:
            return {
                "optimizer": MuonAdamW,
                "parameter_groups": functools.partial(
                    parameter_groups, kernel_lr=recipe.kernel_lr, rest_lr=recipe.rest_lr
                ),
                "schedule": linear(),
            }
        # Nothing is known of the network: AdamW with values that suit most (see
        # docs/decisions/own-models.md).
        return {
            "optimizer": functools.partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05),
            "schedule": cosine(warmup=0.1),
            "clip_norm": 1.0,
        }


def _split(
    sets: ImageSets, seed: int, by: str = BY_CONTENT
) -> tuple[LabelledImages, LabelledImages, LabelledImages, bool]:
    test = sets.test if sets.test is not None else sets.valid
    if test is not None:
        return sets.train, sets.valid if sets.valid is not None else test, test, False
    kept, held = hold_out(sets.train, seed=seed, by=by)
    test = sets.train.select(held)
    return sets.train.select(kept), test, test, True


def _some_of(images: LabelledImages, count: int | None) -> LabelledImages:
    """Returns so many of the images, evenly spaced; None is all of them."""
    if count is None or count >= len(images):
        return images
    return images.select(np.linspace(0, len(images) - 1, count).round().astype(int))


def _copies_left_out(
    sets: ImageSets, train: LabelledImages, test: LabelledImages
) -> tuple[str, ...]:
    num = len(sets.train) - len(train) - len(test)
    return (f"left out: {num:,} exact copies of held-out images",) if num > 0 else ()


def _parts(sets: ImageSets) -> list[LabelledImages]:
    return [part for part in (sets.train, sets.valid, sets.test) if part is not None]


def _members(sets: ImageSets) -> list[SplitMember]:
    return [member for part in _parts(sets) for member in part.members()]


def _read_again(options: ImageOptions, folder: RunFolder) -> ImageSets:
    """Reads a run's source in the run's own format, whatever it has become."""
    check_data_is_there(options.path, "images")
    spec = ClassifierSpec.from_json(folder.read_json("image.json"))
    return read_image_sets(
        None if options.path is None else Path(options.path),
        pixel_format=spec.pixel_format,
        least_classes=1,
        in_files=options.in_files,
    )


def _recorded(sets: ImageSets, record: SplitRecord) -> dict[str, LabelledImages]:
    """Returns the images of each split of a run; without a validation set of its own, that is the
    test set."""
    found = {split: picked(_parts(sets), record[split], record.classes) for split in record.parts}
    return {VALID: found[TEST], **found}


def _with_cache(sets: ImageSets, cache: str | None) -> ImageSets:
    if cache is None:
        return sets
    folder = Path(cache)
    parts = {name: getattr(sets, name) for name in ("train", "valid", "test")}
    lazy = {
        name: part
        for name, part in parts.items()
        if part is not None and isinstance(part.images, ImageFiles)
    }
    if not lazy:
        notice = "image_cache has no effect: the decoded images fit into memory"
        return dataclasses.replace(sets, notices=(*sets.notices, notice))
    cached: dict[str, Any] = {
        name: dataclasses.replace(part, images=part.images.cached(folder))
        for name, part in lazy.items()
    }
    notices = (
        *(text for text in sets.notices if text != sets.decoding),
        f"images are decoded once, into {folder}",
    )
    return dataclasses.replace(sets, **cached, notices=notices)


def _decide_flip(wanted: str, images: Tensor, labels: Tensor, seed: int) -> tuple[bool, str]:
    if wanted != "auto":
        return wanted == "yes", "as asked"
    return flip_is_label_preserving(images, labels, seed)


def _fault_notices(faults: list[Fault]) -> list[str]:
    told = [f"unreadable, left out: {fault.path}: {fault.reason}" for fault in faults[:3]]
    if len(faults) > len(told):
        told.append(
            f"{len(faults) - len(told)} more unreadable images are listed in quarantine.jsonl"
        )
    return told


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # A few thousand images tell mean and deviation to a fraction of a grey level.
    sample = images[:: max(1, len(images) // _NUM_WHITENING_IMAGES)].float()
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1.0)
    return tuple(round(value, 3) for value in mean.tolist()), tuple(
        round(value, 3) for value in std.tolist()
    )


def _patches(images: Tensor) -> Tensor:
    return images[:: max(1, -(-len(images) // _NUM_WHITENING_IMAGES))].contiguous()
