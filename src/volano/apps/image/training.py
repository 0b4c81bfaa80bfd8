"""Makes a Task from a path and options: what is trained, and on which images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from volano.apps.application import Application
from volano.apps.image.augment import Augmentation
from volano.apps.image.fine_tuning.begin import begin
from volano.apps.image.fine_tuning.network import described, input_of, network_of, scale_of
from volano.apps.image.fine_tuning.recipe import FineTuningRecipe, choose_fine_tuning
from volano.apps.image.fine_tuning.task_fields import fine_tuning_fields
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
from volano.apps.image.recipe import ImageRecipe, choose_recipe, view_shift
from volano.apps.image.splits import (
    copies_left_out,
    members_of_sets,
    parts_in,
    read_again,
    recorded_sets,
    some_of,
    split_sets,
    with_cache,
    with_own_validation,
)
from volano.apps.options import Options
from volano.apps.shared_options import batch_in_words, columns_of
from volano.apps.targets.find_target import goal_of_target, target_of_data
from volano.apps.targets.target import Target
from volano.data import Fault, fault_notices
from volano.data.sources import (
    CLASSES,
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    ImageFiles,
    ImageSets,
    LabelledImages,
    SplitRecord,
    TargetFormat,
    WantedFormat,
    check_trained,
    contradictions,
    copies_of_training,
    picked,
    read_image_sets,
)
from volano.device import Device
from volano.pretrained.frozen_features import FineTuningStart
from volano.pretrained.heads import about_network
from volano.pretrained.image_networks import ImageNetwork
from volano.pretrained.linear_probe import PROBE
from volano.pretrained.network_references import HEAD
from volano.task import Task, cosine, linear
from volano.training import MuonAdamW, RunFolder, save_tensors

# Images whose patches' statistics whiten the stem (airbench94 takes 5,000).
_NUM_WHITENING_IMAGES = 5000
_UNREADABLE = "unreadable, left out"


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
        own_model: the function that ``options.model`` names.
        network: the pretrained network that ``options.from_`` names.
        start: the solved head with which it is trained; None: found when it is needed.
        patches: training images uint8 [n, channels, height, width] whose statistics whiten the
            stem.
    """

    kind: ClassVar[str] = "image"
    options_type: ClassVar[type[Options]] = ImageOptions
    sample_minutes: ClassVar[float] = 0.5
    final_metric: ClassVar[str] = "num_test"
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
    network: ImageNetwork | None = None
    start: FineTuningStart | None = field(default=None, repr=False)

    @classmethod
    def read(cls, options: ImageOptions, scratch: Path | None = None) -> Self:  # noqa: ARG003
        """Reads the images, splits them if the source does not, and finds out what the recipe needs
        to know."""
        path = None if options.path is None else Path(options.path)
        network = network_of(options)
        wanted = WantedFormat(
            size=options.image_size if network is None else None, fit=options.fit,
            pixel_range=options.pixel_range, **({} if network is None else input_of(network)),
        )  # fmt: skip
        sets = read_image_sets(
            path,
            wanted,
            in_files=options.in_files,
            target=TargetFormat(kind=options.target, columns=columns_of(options.target_columns)),
        )
        return cls._of(options, with_cache(sets, options.image_cache), network)

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
        sets = with_cache(read_again(options, folder), options.image_cache)
        found = recorded_sets(sets, record)
        record.check_there(found, members_of_sets(sets), "images", options.path)
        start = FineTuningStart.of_run(folder.path)
        return cls._of(options, sets, network_of(options), found, start)

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
        sets = read_again(options, folder)
        test = picked(parts_in(sets), record[TEST], record.classes)
        notices = record.changes(members_of_sets(sets), "images")
        faults = [fault for part in parts_in(sets) for fault in part.faults]
        record.check_tested(test, "images", options.path)
        return test, sets.origin, (*notices, *fault_notices(faults, _UNREADABLE))

    @classmethod
    def _of(
        cls,
        options: ImageOptions,
        sets: ImageSets,
        network: ImageNetwork | None = None,
        recorded: dict[str, LabelledImages] | None = None,
        start: FineTuningStart | None = None,
    ) -> Self:
        own_model = None if network is not None else own_model_of(options.model)
        train, valid, test, is_held_out = _split(options, sets, recorded)
        target = target_of_data(train, columns_of(options.target_columns))
        check_trained(train.kind, train.classes, train.labels, "images")
        known, about = train.sample()
        flip, reason = _decide_flip(options.flip, known, about.labels, options.seed)
        mean, std = _statistics(known) if network is None else scale_of(network)
        image_size = train.images.shape[-1]
        spec = ClassifierSpec(
            classes=train.classes, channels=train.images.shape[1], image_size=image_size,
            mean=mean, std=std,
            size=options.size or "thin" if own_model is None and network is None else None,
            model_reference=options.model, flip=flip,
            translate=view_shift(image_size) if network is None else 0,
            pixel_range=sets.pixel_range, fit=sets.fit, target=target.to_json(),
            pretrained=None if network is None else described(network, options.tune or HEAD),
        )  # fmt: skip
        check_classifier(spec, own_model)
        black, white = sets.pixel_range or (None, None)
        resolved = dataclasses.replace(
            options, flip="yes" if flip else "no", target=train.kind, black=black, white=white,
            in_files=isinstance(sets.train.images, ImageFiles),
        )  # fmt: skip
        faults = (*sets.faults, *(fault for part in parts_in(sets) for fault in part.faults))
        found = cls(
            options=resolved, spec=spec, train=train, valid=valid, test=test, faults=faults,
            is_held_out=is_held_out, origin=sets.origin, notices=(), own_model=own_model,
            network=network, start=start, patches=_patches(known),
        )  # fmt: skip
        told = found._told(sets, target, is_new=recorded is None, why_flip=reason)
        return dataclasses.replace(found, notices=told)

    def _told(
        self, sets: ImageSets, target: Target, *, is_new: bool, why_flip: str
    ) -> tuple[str, ...]:
        """Returns what a person should know of the images."""
        train, test, batch_size = self.train, self.test, self.options.batch_size
        notices = [
            target.data_in_words("images", self._parts(), is_held_out=self.is_held_out),
            *(() if self.network is None else about_network(self.network, self.spec.classes)),
            *sets.notices,
            *fault_notices(self.faults, _UNREADABLE),
            *(copies_left_out(sets, self._parts().values()) if self.is_held_out and is_new else ()),
            *contradictions(members := train.members(), "images"),
            *copies_of_training(members, test.members(), "images"),
        ]
        notices += batch_in_words(batch_size, len(train), "images")
        notices.append(f"flip={self.options.flip}: {why_flip}")
        if self.class_weights is not None:
            counts = torch.bincount(train.labels)
            notices.append(
                f"classes of {int(counts.min())} to {int(counts.max())} images: weighted inversely"
            )
        return tuple(notices)

    def _parts(self) -> dict[str, LabelledImages]:
        """The images of each split; there may be no validation images but the test images."""
        valid = {} if self.valid is self.test else {VALID: self.valid}
        return {TRAIN: self.train, **valid, TEST: self.test}

    def write(self, folder: RunFolder, scratch: Path | None) -> None:  # noqa: ARG002
        """Writes the description of the classifier, and which image is in which split."""
        folder.write_json(self.spec.file, self.spec.to_json())
        members = {split: part.members() for split, part in self._parts().items()}
        classes = self.train.classes if self.train.kind == CLASSES else ()
        folder.write_json(SPLITS_NAME, SplitRecord(classes=classes, parts=members).to_json())
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
        """Solves a head of the pretrained network; see ``fine_tuning/begin.py``."""
        assert self.network is not None
        return begin(
            self.network, self.train, self.spec.answers, device, seed=self.options.seed,
            is_balanced=self.class_weights is not None,
        )  # fmt: skip

    @property
    def expected(self) -> dict[str, float]:
        """The cross-validated figure of the solved head, if there is one."""
        return {} if self.network is None else self.begun.probe.figures

    @property
    def is_solved(self) -> bool:
        """Returns whether the head on a frozen trunk was solved before the first step."""
        return self.network is not None and (self.options.tune or HEAD) == HEAD

    def with_tune(self, tune: str) -> Self:
        """The same with that part of the network trained."""
        assert self.network is not None
        spec = dataclasses.replace(self.spec, pretrained=described(self.network, tune))
        return dataclasses.replace(self.with_options(tune=tune), spec=spec)

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """The weight of each class's examples, or None for equal ones."""
        return balanced_weights(self.train.labels, len(self.spec.classes))

    @classmethod
    def goal_of_study(cls, options: Mapping[str, Any]) -> tuple[str, str]:
        return goal_of_target(options)

    def for_study(self) -> Self:
        """Implements :meth:`Application.for_study`: without ``tune`` a head is trained."""
        return self if self.network is None else self.with_tune(self.options.tune or HEAD)

    def about_keeping(self) -> tuple[str, ...]:
        """Implements :meth:`Application.about_keeping`: no test image has a say."""
        return (f"keep=best: the best by {len(self.valid):,} images that are not trained on",)

    @property
    def looked_at(self) -> LabelledImages:
        """The validation images that an evaluation looks at."""
        return some_of(self.valid, self.options.num_valid)

    @property
    def tested(self) -> LabelledImages:
        """The test images that the final test looks at."""
        return some_of(self.test, self.options.num_test)

    def recipe(self, epochs: float) -> ImageRecipe | FineTuningRecipe:
        """The recipe for so many passes over the training images."""
        if self.network is not None:
            return choose_fine_tuning(
                self.options.tune or HEAD,
                num_train=len(self.train),
                resolution=self.spec.image_size,
                epochs=epochs,
                batch_size=self.options.batch_size,
            )
        return choose_recipe(
            num_train=len(self.train),
            resolution=self.spec.image_size,
            num_classes=len(self.spec.classes),
            epochs=epochs,
            batch_size=self.options.batch_size,
        )

    def steps_in(self, epochs: float) -> int:
        return max(1, round(epochs * (len(self.train) // self.recipe(epochs).batch_size)))

    @property
    def has_views(self) -> bool:
        """Returns whether a final test can look at an image more than once, moved or mirrored."""
        return bool(self.spec.flip or self.spec.translate)

    @property
    def size_in_words(self) -> str:
        """The network and its batch."""
        own = None if self.network is None else self.network.reference
        network = own or self.spec.size or self.spec.model_reference
        return f"{network} network at {self.recipe(1.0).batch_size} images a step"

    def with_size(self, size: str) -> Self:
        """The same with a network of another size."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, size=size))

    def recipe_of(self, num_steps: int) -> ImageRecipe | FineTuningRecipe:
        return self.recipe(num_steps / self.steps_in(1.0))

    def task(self, num_steps: int, recipe: Any = None) -> Task:
        recipe = recipe or self.recipe_of(num_steps)
        return Task(
            name="image",
            data=self.train.dataset(self.spec.answers.wanted),
            valid=self.looked_at.dataset(self.spec.answers.wanted),
            **self._fields(recipe),
            batch_size=recipe.batch_size,
            duration=f"{num_steps}st",
            evaluate_every=self.evaluation_interval(num_steps, recipe),
            seed=self.options.seed,
        )

    def fit_trial(
        self, seconds: float, seconds_per_step: Callable[[Task], float], device: Device
    ) -> tuple[Self, float]:
        """Implements :meth:`Application.fit_trial`; the network is thin unless another is asked
        for."""
        del seconds, device
        is_open = self.options.size is None and self.spec.size is not None
        sized = self.with_size("thin") if is_open else self
        return sized, seconds_per_step(sized.task(1000))

    def resolved(self, num_steps: int) -> dict[str, Any]:
        """Implements :meth:`Application.resolved`; the network's size is chosen by then."""
        return {**super().resolved(num_steps), "size": self.spec.size}

    def _fields(self, recipe: Any) -> dict[str, Any]:
        """The fields of the Task that differ from network to network."""
        objective = self.spec.answers.objective(
            Classification(label_smoothing=recipe.label_smoothing, class_weights=self.class_weights)
        )
        if self.network is not None:
            return fine_tuning_fields(
                self.network, self.options.tune or HEAD, recipe, self.begun.probe,
                num_classes=len(self.spec.classes), flip=self.spec.flip, objective=objective,
            )  # fmt: skip
        augment = Augmentation(
            flip=self.spec.flip, translate=recipe.translate, cutout=recipe.cutout
        )
        return {
            "model": functools.partial(make_classifier, self.spec, self.own_model, self.patches),
            "objective": objective,
            "augment": augment,
            **self._optimization(recipe),
        }

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
    options: ImageOptions, sets: ImageSets, recorded: dict[str, LabelledImages] | None
) -> tuple[LabelledImages, LabelledImages, LabelledImages, bool]:
    """Returns images to train on, to look at and to test on, and whether Volano split the last
    off."""
    if recorded is not None:
        train, valid, test = (recorded[split] for split in (TRAIN, VALID, TEST))
        return train, valid, test, sets.test is None and sets.valid is None
    train, valid, test, is_held_out = split_sets(sets, options.seed, options.held_out_by)
    if options.keep == "best" and valid is test:
        train, valid, test = with_own_validation(train, test, options.seed)
    return train, valid, test, is_held_out


def _decide_flip(wanted: str, images: Tensor, labels: Tensor, seed: int) -> tuple[bool, str]:
    if wanted != "auto":
        return wanted == "yes", "as asked"
    return flip_is_label_preserving(images, labels, seed)


def _statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # A few thousand images tell mean and deviation to a fraction of a grey level.
    sample = images[:: max(1, len(images) // _NUM_WHITENING_IMAGES)].float()
    mean, std = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp(min=1.0)
    return tuple(round(value, 3) for value in mean.tolist()), tuple(
        round(value, 3) for value in std.tolist()
    )


def _patches(images: Tensor) -> Tensor:
    return images[:: max(1, -(-len(images) // _NUM_WHITENING_IMAGES))].contiguous()
