"""From a path and some options to a Task: what is trained, and on which images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from volano.apps.image.augment import Augmentation
from volano.apps.image.flip import flip_is_label_preserving
from volano.apps.image.model_spec import ClassifierSpec, make_classifier
from volano.apps.image.network import parameter_groups
from volano.apps.image.objective import Classification, balanced_weights
from volano.apps.image.recipe import SIZES, ImageRecipe, choose_recipe
from volano.data import Fault
from volano.data.sources import ImageFiles, ImageSets, LabelledImages, hold_out, read_image_sets
from volano.errors import DataError, UsageError
from volano.task import Task, cosine, linear
from volano.training import MuonAdamW

# Images whose patches' statistics whiten the stem (airbench94 takes 5,000).
_NUM_WHITENING_IMAGES = 5000
_FLIPS = ("auto", "yes", "no")


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What a person may say, all of it optional. Resolved options (``num_steps``, ``flip`` as yes or no,
    ``in_files``) make the same Task again.

    Attributes:
        path: see ``read_image_sets``; None is the embedded sample.
        epochs: passes over the training set; None leaves the choice to minutes or to the recipe.
        num_steps: optimizer steps; goes before ``epochs``.
        size: of the network: thin, base or wide; None chooses.
        model: ``module:function`` of a network of one's own.
        image_size: pixels to decode files to; None chooses.
        image_cache: folder for decoded images that do not fit into memory; None decodes them whenever they are needed.
        in_files: whether images stay in their files; None decides by the memory that is free.
        batch_size: examples per step; None leaves it to the recipe.
        flip: whether to mirror images: auto finds out.
        seed: of everything.
    """

    path: str | None = None
    epochs: float | None = None
    num_steps: int | None = None
    size: str | None = None
    model: str | None = None
    image_size: int | None = None
    image_cache: str | None = None
    in_files: bool | None = None
    batch_size: int | None = None
    flip: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            raise UsageError(f"--size is one of {', '.join(SIZES)}", got=repr(self.size))
        if not 0 <= self.seed < 2**63:
            raise UsageError("--seed is a whole number from 0 to 2**63 - 1", got=self.seed)
        if self.flip not in _FLIPS:
            raise UsageError(f"--flip is one of {', '.join(_FLIPS)}", got=repr(self.flip))
        if self.epochs is not None and not 0 < self.epochs < float("inf"):
            raise UsageError("--epochs is a number above 0", got=self.epochs)
        for name in ("image_size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is a whole number above 0", got=value)
        if self.image_size is not None and not 8 <= self.image_size <= 512:
            raise UsageError("--image-size lies between 8 and 512 pixels", got=self.image_size)
        if self.model is not None and self.size is not None:
            raise UsageError("--size chooses among Volano's networks", got="--size together with --model")

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ImageApplication:
    """Images and a classifier to train on them; :meth:`task` makes the Task for a number of steps.

    Attributes:
        options: with ``flip`` resolved.
        spec: of the classifier.
        train: images to train on.
        valid: images evaluated during the run.
        test: images of the final figures; the same as ``valid`` where the source has one split only.
        is_held_out: whether ``test`` was split off by Volano.
        origin: where the images come from, in words.
        faults: files that could not be read, left out.
        notices: what a person should know.
        own_model: what ``options.model`` names.
        patches: training images uint8 [n, channels, height, width] whose statistics whiten the stem.
    """

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
        """Optimizer steps in so many passes."""
        return max(1, round(epochs * (len(self.train) // self.recipe(epochs).batch_size)))

    def with_size(self, size: str) -> ImageApplication:
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
            augment=Augmentation(flip=self.spec.flip, translate=recipe.translate, cutout=recipe.cutout),
            **self._optimization(recipe),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=f"{max(1, -(-num_steps // recipe.num_evaluations))}st",
            seed=self.options.seed,
        )

    def _optimization(self, recipe: ImageRecipe) -> dict[str, Any]:
        if self.own_model is None:
            return {
                "optimizer": MuonAdamW,
                "parameter_groups": functools.partial(
                    parameter_groups, kernel_lr=recipe.kernel_lr, rest_lr=recipe.rest_lr
                ),
                "schedule": linear(),
            }
        # Nothing is known of the network: AdamW with values that suit most (see docs/decisions/own-models.md).
        return {
            "optimizer": functools.partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.05),
            "schedule": cosine(warmup=0.1),
            "clip_norm": 1.0,
        }


def read_application(options: ImageOptions, own_model: Callable[..., Any] | None = None) -> ImageApplication:
    """Reads the images, splits them where the source does not, and finds out what the recipe needs to know.

    Raises:
        UsageError: the path does not exist.
        DataError: what lies there cannot be trained on.
    """
    path = None if options.path is None else Path(options.path)
    sets = read_image_sets(path, size=options.image_size, in_files=options.in_files)
    if options.image_cache is not None:
        sets = _with_cache(sets, Path(options.image_cache))
    train, valid, test, is_held_out = _split(sets, options.seed)
    faults = [fault for part in (sets.train, sets.valid, sets.test) if part is not None for fault in part.faults]
    notices = [*sets.notices, *_fault_notices(faults)]
    empty = [train.classes[row] for row in (torch.bincount(train.labels, minlength=len(train.classes)) == 0).nonzero()]
    if empty:
        raise DataError("Every class has readable images to train on", got=f"none of {', '.join(empty[:5])}")
    if options.batch_size is not None and options.batch_size > len(train):
        notices.append(f"batch_size={len(train)}: there are no more images to train on")
    known, about = train.sample()
    flip, reason = _decide_flip(options.flip, known, about.labels, options.seed)
    notices.append(f"flip={'yes' if flip else 'no'}: {reason}")
    if balanced_weights(train.labels, len(train.classes)) is not None:
        counts = torch.bincount(train.labels)
        notices.append(f"classes of {int(counts.min())} to {int(counts.max())} images: weighted inversely")
    mean, std = _statistics(known)
    channels, image_size = train.images.shape[1], train.images.shape[-1]
    recipe = choose_recipe(
        num_train=len(train), resolution=image_size, num_classes=len(train.classes), epochs=1.0, batch_size=None
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
    return ImageApplication(
        options=dataclasses.replace(
            options, flip="yes" if flip else "no", in_files=isinstance(sets.train.images, ImageFiles)
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


def _split(sets: ImageSets, seed: int) -> tuple[LabelledImages, LabelledImages, LabelledImages, bool]:
    test = sets.test if sets.test is not None else sets.valid
    if test is not None:
        return sets.train, sets.valid if sets.valid is not None else test, test, False
    kept, held = hold_out(sets.train, seed=seed)
    test = sets.train.select(held)
    return sets.train.select(kept), test, test, True


def _with_cache(sets: ImageSets, folder: Path) -> ImageSets:
    parts = {name: getattr(sets, name) for name in ("train", "valid", "test")}
    lazy = {name: part for name, part in parts.items() if part is not None and isinstance(part.images, ImageFiles)}
    if not lazy:
        notice = "image_cache has no effect: the decoded images fit into memory"
        return dataclasses.replace(sets, notices=(*sets.notices, notice))
    cached: dict[str, Any] = {
        name: dataclasses.replace(part, images=part.images.cached(folder)) for name, part in lazy.items()
    }
    notices = (*(text for text in sets.notices if text != sets.decoding), f"images are decoded once, into {folder}")
    return dataclasses.replace(sets, **cached, notices=notices)


def _decide_flip(wanted: str, images: Tensor, labels: Tensor, seed: int) -> tuple[bool, str]:
    if wanted != "auto":
        return wanted == "yes", "as asked"
    return flip_is_label_preserving(images, labels, seed)


def _fault_notices(faults: list[Fault]) -> list[str]:
    told = [f"unreadable, left out: {fault.path}: {fault.reason}" for fault in faults[:3]]
    if len(faults) > len(told):
        told.append(f"{len(faults) - len(told)} more unreadable images are listed in quarantine.jsonl")
    return told


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # A few thousand images tell mean and deviation to a fraction of a grey level.
    sample = images[:: max(1, len(images) // _NUM_WHITENING_IMAGES)].float()
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1.0)
    return tuple(round(value, 3) for value in mean.tolist()), tuple(round(value, 3) for value in std.tolist())


def _patches(images: Tensor) -> Tensor:
    return images[:: max(1, -(-len(images) // _NUM_WHITENING_IMAGES))].contiguous()
