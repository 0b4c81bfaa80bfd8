"""What is done with a run of the image application: eval, predict, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from volano.apps.classification import classification_scores
from volano.apps.image.application import read_application
from volano.apps.image.export import export_classifier
from volano.apps.image.model_spec import ClassifierSpec, make_classifier
from volano.apps.image.pictures import write_scores
from volano.apps.image.scores import predict_labelled, predict_logits
from volano.apps.image.train import options_of, own_model_of
from volano.apps.predictions import write_prediction_table
from volano.data.sources import (
    ImageFile,
    LabelledImages,
    decode_all,
    is_image,
    listed,
    read_image_sets,
    refuse_run,
    run_notices,
)
from volano.device import Device
from volano.errors import CheckpointError, DataError, UsageError
from volano.running.checks import check_ended, evaluation_name
from volano.running.train import kind_of
from volano.training import RunFolder, load_weights


def eval_image(path: str | Path, images: str | Path | None = None, *, device: str | None = None) -> dict[str, Any]:
    """Scores of a run's classifier.

    Args:
        path: the run's folder.
        images: any source of labelled images with the run's classes (its test split where it names one); None is the
            run's own test set.
        device: as torch writes it.

    Returns:
        See ``classification_scores``, with ``picture``, the path of the confusion matrix. The same stands in the run's
        folder as ``eval-NAME.json`` and ``eval-NAME.png``.
    """
    folder, spec, model = _open(path)
    if images is None:
        options = options_of(folder)
        application = read_application(options, own_model_of(options.model))
        test, name, origin, notices = application.test, "test", f"{application.origin}, test", ()
    else:
        sets = read_image_sets(Path(images), pixel_format=spec.pixel_format, least_classes=1)
        test = _in_terms_of(spec, sets.test or sets.valid or sets.train)
        name, origin, notices = evaluation_name(images), sets.origin, sets.notices
    place = Device(device)
    logits, labels, faults = predict_labelled(
        model.to(place.torch_device), test, place, precision="fp32", flip=spec.flip, translate=spec.translate
    )
    scores = classification_scores(logits, labels, spec.classes)
    return {**write_scores(folder, name, scores, faults, origin), "notices": list(notices)}


def predict_image(
    path: str | Path,
    files: Sequence[str | Path],
    *,
    top_k: int = 3,
    csv_path: str | Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """The most likely classes of image files, and of those in folders.

    Returns:
        ``predictions``: path and ``top`` (class and probability, the likeliest first) of each image; ``unreadable``:
        path and reason of the others; ``notices``; ``top_k``.

    Raises:
        UsageError: a file does not exist, or is not named like an image.
        DataError: none could be read.
    """
    _, spec, model = _open(path)
    if top_k < 1:
        raise UsageError("--top-k is a whole number above 0", got=top_k)
    top_k = min(top_k, len(spec.classes))
    runs: set[Path] = set()
    found = [ImageFile(path=file, label=None) for file in _image_files(files, runs)]
    images = decode_all(found, spec.classes, spec.pixel_format, root=Path(), max_share=1.0)
    if not len(images):
        raise DataError("One of the images can be read", got=f"none; the first: {images.faults[0].reason}")
    assert isinstance(images.images, torch.Tensor)
    top = _predict(model, spec, images.images, device).softmax(1).topk(top_k)
    predictions = [
        {
            "path": name,
            "top": [
                {"class": spec.classes[number], "probability": round(probability, 6)}
                for number, probability in zip(numbers, probabilities, strict=True)
            ],
        }
        for name, numbers, probabilities in zip(images.names, top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    if csv_path is not None:
        write_prediction_table(Path(csv_path), predictions, top_k)
    unreadable = [{"path": fault.path, "reason": fault.reason} for fault in images.faults]
    told = {"unreadable": unreadable, "notices": list(run_notices(runs))}
    return {"run": str(path), "top_k": top_k, "predictions": predictions, **told}


def export_image(path: str | Path, to: str, out: str | Path | None = None) -> dict[str, Any]:
    """Writes a run's classifier as safetensors, pt2 or onnx, loads it back and compares predictions.

    The exported program takes bytes uint8 [N, channels, size, size] and gives logits [N, classes].
    """
    folder, spec, model = _open(path)
    own_model = own_model_of(spec.model_reference)
    suffix = {"safetensors": "exported.safetensors"}.get(to, to)
    target = Path(out) if out is not None else folder.path / f"model.{suffix}"
    if not target.parent.is_dir() or target.is_dir():
        raise UsageError("--out names a file in a folder that exists", got=str(target))
    try:
        samples = load_file(folder.path / "samples.safetensors")["images"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            "A run of the image application holds samples.safetensors to compare predictions on", got=f"{error}"
        ) from error
    result = export_classifier(model, make_classifier(spec, own_model), samples, to, target)
    return {"run": str(folder.path), "classes": list(spec.classes), "input": list(samples.shape[1:]), **result}


def _open(path: str | Path) -> tuple[RunFolder, ClassifierSpec, nn.Module]:
    folder = RunFolder.open(path)
    if kind_of(path) != "image":
        raise UsageError("This is for runs of the image application", got=str(path))
    check_ended(folder)
    spec = ClassifierSpec.from_json(folder.read_json("image.json"))
    model = make_classifier(spec, own_model_of(spec.model_reference))
    load_weights(model, folder.path / "model.safetensors")
    return folder, spec, model.eval()


def _predict(model: nn.Module, spec: ClassifierSpec, images: torch.Tensor, device: str | None) -> torch.Tensor:
    place = Device(device)
    return predict_logits(
        model.to(place.torch_device), images, place, precision="fp32", flip=spec.flip, translate=spec.translate
    )


def _in_terms_of(spec: ClassifierSpec, images: LabelledImages) -> LabelledImages:
    unknown = sorted(set(images.classes) - set(spec.classes))
    if unknown:
        raise DataError(
            "Images to evaluate on are of the run's classes",
            got=f"also {', '.join(unknown[:5])}",
            remedy=f"The run knows {', '.join(spec.classes[:10])}",
        )
    if images.images.shape[1] != spec.channels or images.images.shape[-1] != spec.image_size:
        raise DataError(
            "Images to evaluate on are like those of the run",
            got=f"{images.images.shape[1]} channels of {images.images.shape[-1]} px",
            remedy=f"The run takes {spec.channels} channels of {spec.image_size} px",
        )
    numbers = torch.tensor([spec.classes.index(name) for name in images.classes])
    return LabelledImages(
        images=images.images, labels=numbers[images.labels], classes=spec.classes, names=images.names,
        faults=images.faults,
    )  # fmt: skip


def _image_files(files: Sequence[str | Path], runs: set[Path]) -> list[Path]:
    """Those named, and those in folders; folders of runs in these are added to ``runs`` instead."""
    found: list[Path] = []
    for file in map(Path, files):
        if not file.exists():
            raise UsageError("A file to predict exists", got=str(file))
        refuse_run(file)
        if file.is_dir():
            found += listed(file, runs)
        elif is_image(file.name):
            found.append(file)
        else:
            raise UsageError("A file to predict is named like an image (.jpg, .png, ...)", got=str(file))
    if not found:
        raise DataError("There are images to predict", got=f"none in {', '.join(map(str, files))}")
    return found
