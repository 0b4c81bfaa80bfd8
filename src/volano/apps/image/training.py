"""Makes a Task from a path and options: what is trained, and on which images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from volano.apps.application import Application
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
from volano.data.sources import ImageFiles, ImageSets, LabelledImages, hold_out, read_image_sets
from volano.device import Device
from volano.errors import DataError
from volano.task import Task, cosine, linear
from volano.training import MuonAdamW

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
        own_model = own_model_of(options.model)
        path = None if options.path is None else Path(options.path)
        sets = read_image_sets(path, size=options.image_size, in_files=options.in_files)
        if options.image_cache is not None:
            sets = _with_cache(sets, Path(options.image_cache))
        train, valid, test, is_held_out = _split(sets, options.seed)
        faults = [
            fault
            for part in (sets.train, sets.valid, sets.test)
            if part is not None
            for fault in part.faults
        ]
        notices = [*sets.notices, *_fault_notices(faults)]
        empty = [
            train.classes[row]
            for row in (torch.bincount(train.labels, minlength=len(train.classes)) == 0).nonzero()
        ]
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
            counts = torch.bincount(train.labels)
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
        )
        check_classifier(spec, own_model)
        return cls(
            options=dataclasses.replace(
                options,
                flip="yes" if flip else "no",
                in_files=isinstance(sets.train.images, ImageFiles),
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
            valid=self.valid.dataset(),
            augment=Augmentation(
                flip=self.spec.flip, translate=recipe.translate, cutout=recipe.cutout
            ),
            **self._optimization(recipe),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // recipe.num_evaluations))}st",
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
    sets: ImageSets, seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages, bool]:
    test = sets.test if sets.test is not None else sets.valid
    if test is not None:
        return sets.train, sets.valid if sets.valid is not None else test, test, False
    kept, held = hold_out(sets.train, seed=seed)
    test = sets.train.select(held)
    return sets.train.select(kept), test, test, True


def _with_cache(sets: ImageSets, folder: Path) -> ImageSets:
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
