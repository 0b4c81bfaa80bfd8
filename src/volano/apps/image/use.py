"""A trained classifier of images: evaluate, predict, export."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor

from volano.apps.application import Table, TrainedModel
from volano.apps.export import (
    HF,
    SAMPLES,
    export_classifier,
    export_folder,
    export_place,
    samples_of,
)
from volano.apps.image.fine_tuning.export import export_hf, is_classifier_of_transformers
from volano.apps.image.fine_tuning.network import fresh_classifier, load_classifier
from volano.apps.image.model_spec import ClassifierSpec
from volano.apps.image.pictures import write_scores
from volano.apps.image.scores import predict_labelled, predict_logits
from volano.apps.image.training import ImageTraining
from volano.apps.predictions import Predictions
from volano.data import Fault, check_readable
from volano.data.sources import (
    ImageFile,
    LabelledImages,
    decode,
    decode_all,
    files_to_predict,
    is_image,
    listed,
    pixels_of,
    read_image_sets,
)
from volano.errors import DataError, UsageError
from volano.running.checks import evaluation_name
from volano.training import RunFolder


class ImageModel(TrainedModel):
    """A classifier of images.

    Attributes:
        spec: its description.
        classes: the class names, in the order of the logits; names of labels or numbers.
        module: bytes uint8 [N, channels, size, size] in, logits fp32 [N, classes] out; numbers as
            distances from the training examples' mean, in deviations.
    """

    spec: ClassifierSpec

    @classmethod
    def open(cls, folder: RunFolder, device: str | None = None) -> Self:
        spec = ClassifierSpec.of_run(folder)
        return cls(folder, load_classifier(spec, folder.path), device, spec=spec)

    def evaluate(self, path: str | Path | None = None) -> dict[str, Any]:
        """Computes the figures on images.

        Args:
            path: any source of labelled images with the run's classes (its test split if it names
                one); None is the run's own test set.

        Returns:
            See ``scores`` of the target's kind, with ``picture``, the path of the confusion matrix
            or of predicted over true numbers. The same stands in the run's folder as
            ``eval-NAME.json`` and ``eval-NAME.png``.
        """
        spec = self.spec
        if path is None:
            test, origin, notices = ImageTraining.test_of_run(self.folder)
            name, origin = "test", f"{origin}, test"
        else:
            sets = read_image_sets(
                Path(path), spec.pixel_format, least_classes=1, classes=spec.classes,
                target=spec.answers.format(),
            )  # fmt: skip
            test = _in_terms_of(spec, sets.test or sets.valid or sets.train)
            name, origin, notices = evaluation_name(path), sets.origin, sets.notices
            record = ImageTraining.splits_of(self.folder)
            if record is not None:
                notices += record.trained_on(test.members(), "images")
        logits, labels, faults = predict_labelled(self.module, test, self.device, spec.views())
        scores = spec.answers.scores(logits, labels)
        result = write_scores(
            self.folder, name, spec.answers, scores, faults, origin, may_fail=True
        )
        return {**result, "notices": [*notices, *result.get("notices", ())]}

    def describe_evaluation(self, result: Mapping[str, Any]) -> list[str | Table]:
        target = self.spec.answers
        more = [f"{target.picture}: {result['picture']}"] if "picture" in result else []
        return [*target.tables(result, "images"), *more]

    def predict(self, images: Any, *, top_k: int = 3) -> Predictions:
        """Predicts the likeliest classes of images, their labels or their numbers.

        Args:
            images: one, or a sequence of them: files, folders of files, pictures of Pillow, or
                arrays and tensors uint8 [height, width], [height, width, channels] or [channels,
                height, width]. Pictures are brought to the model's size and channels as in
                training.
            top_k: classes of each; labels whose probabilities are told.

        Raises:
            UsageError: a file does not exist or is not named like an image; an array of another
                form.
            DataError: none could be read.
        """
        is_one = (
            isinstance(images, str | Path)
            or hasattr(images, "convert")
            or getattr(images, "ndim", 4) <= 3
        )
        items: list[Any] = [images] if is_one else list(cast(Any, images))
        notices: tuple[str, ...] = ()
        if all(isinstance(item, str | Path) for item in items):
            paths, notices = files_to_predict(
                items, listed, is_image, what="images", one="an image (.jpg, .png, ...)"
            )
            found = [ImageFile(path=file, label=None) for file in paths]
            read = decode_all(
                found, self.classes, self.spec.pixel_format, root=Path(), max_share=1.0
            )
            check_readable(len(read), "images", read.faults)
            assert isinstance(read.images, Tensor)
            pixels, names, faults = read.images, read.names, read.faults
        else:
            pixels, names, faults = self._pixels_of(items)
        logits = predict_logits(self.module, pixels, self.device, self.spec.views())
        return Predictions.of(self, logits, names, top_k, faults, notices)

    def export(self, to: str, out: str | Path | None = None) -> dict[str, Any]:
        """Writes the classifier as safetensors, pt2 or onnx, or with a model card as a folder that
        ``from_pretrained`` loads, of another network that holds a pt2 (hf); loads it back and
        compares predictions.

        The exported program takes bytes uint8 [N, channels, size, size] and gives logits [N,
        classes], or numbers in their own units.
        """
        target = export_place(self.path, to, out)
        samples = samples_of(self.path / SAMPLES, "images")
        about = {
            "run": str(self.path),
            "classes": list(self.classes),
            "target": self.spec.answers.kind,
            "input": list(samples.shape[1:]),
        }
        module = copy.deepcopy(self.module).cpu()
        if to == HF and is_classifier_of_transformers(self.spec):
            return {**about, **export_hf(module, self.spec, self.folder, samples, target)}
        fresh = fresh_classifier(self.spec, self.path)
        write = functools.partial(
            export_classifier, module, fresh, samples, target=self.spec.answers
        )
        if to == HF:
            return {**about, **export_folder(write, self.folder, target, about)}
        return {**about, **write(to, target)}

    def _pixels_of(self, pictures: Sequence[Any]) -> tuple[Tensor, list[str], tuple[Fault, ...]]:
        """Returns the pixels uint8 [N, channels, size, size] of pictures in memory, their places as
        names, and the others."""
        pixels, names, faults = [], [], []
        for place, picture in enumerate(pictures):
            try:
                pixels.append(self._pixels_of_one(picture))
                names.append(f"image {place}")
            except OSError as error:
                faults.append(Fault(place, f"image {place}", str(error)))
        check_readable(len(pixels), "images", faults)
        return torch.from_numpy(np.stack(pixels)), names, tuple(faults)

    def _pixels_of_one(self, picture: Any) -> np.ndarray:
        if isinstance(picture, str | Path):
            return decode(Path(picture), self.spec.pixel_format)
        return pixels_of(_as_picture(picture), self.spec.pixel_format)


def _as_picture(picture: Any) -> Any:
    """A picture of Pillow from one, or from bytes in an array or a tensor."""
    from PIL import Image

    if hasattr(picture, "convert"):
        return picture
    values = np.asarray(picture.detach().cpu() if isinstance(picture, Tensor) else picture)
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[-1] not in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    is_form = values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (1, 3, 4))
    if values.dtype != np.uint8 or not is_form or not values.size:
        raise UsageError(
            "An image in memory must be one of Pillow, or bytes uint8 of 2 or 3 dimensions",
            got=f"{values.dtype} {list(values.shape)}",
            remedy="Scale to 0 to 255 and convert to uint8",
        )
    return Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[-1] == 1 else values)


def _in_terms_of(spec: ClassifierSpec, images: LabelledImages) -> LabelledImages:
    unknown = sorted(set(images.classes) - set(spec.classes))
    if unknown:
        raise DataError(
            "Images to evaluate on must be of the run's classes",
            got=f"also {', '.join(unknown[:5])}",
            remedy=f"The run knows {', '.join(spec.classes[:10])}",
        )
    if images.images.shape[1] != spec.channels or images.images.shape[-1] != spec.image_size:
        raise DataError(
            "Images to evaluate on must be like those of the run",
            got=f"{images.images.shape[1]} channels of {images.images.shape[-1]} px",
            remedy=f"The run takes {spec.channels} channels of {spec.image_size} px",
        )
    return images.in_terms_of(spec.classes)
