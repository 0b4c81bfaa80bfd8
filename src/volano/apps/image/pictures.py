"""Writes the pictures of an image run: scores with their confusion matrix, the hardest test images,
and an augmented batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from volano.apps.image.training import ImageTraining
from volano.apps.targets.target import Target, hardest
from volano.data import Fault, Fetcher, Order
from volano.data.sources import LabelledImages
from volano.device import Device
from volano.errors import DataError, RunError, VolanoError, in_words
from volano.report import Example, draw_sheet, draw_top_losses
from volano.task import Task
from volano.training import RunFolder, seed_of_augmentation

_NUM_HARDEST, _NUM_AUGMENTED = 12, 24


def write_scores(
    folder: RunFolder,
    name: str,
    target: Target,
    scores: dict[str, Any],
    faults: Sequence[Fault],
    origin: str,
    *,
    may_fail: bool = False,
) -> dict[str, Any]:
    """Writes ``eval-NAME.json`` and, of classes and numbers, a picture ``eval-NAME.png``, and
    returns what the former holds.

    Args:
        may_fail: whether a notice says that the folder, another person's say, cannot be written to.

    Raises:
        RunError, OSError: it cannot be written to.
    """
    result = {"run": str(folder.path), "origin": origin, **scores}
    result["unreadable"] = [asdict(fault) for fault in faults]
    try:
        if target.picture:
            picture = folder.path / f"eval-{name}.png"
            target.draw(scores, origin, picture)
            result["picture"] = str(picture)
        folder.write_json(f"eval-{name}.json", result)
    except (OSError, RunError) as error:
        if not may_fail:
            raise
        result["notices"] = [f"not kept: {in_words(error)}"]
    return result


def write_pictures(
    folder: RunFolder,
    application: ImageTraining,
    task: Task,
    logits: Tensor,
    labels: Tensor,
    scores: dict[str, Any],
    faults: Sequence[Fault],
    device: Device,
) -> list[str]:
    """Writes everything that the report of a finished run shows; a notice if it could not be
    written, since a picture is no reason to lose a run. ``logits``, ``labels`` and ``faults`` are
    what ``predict_labelled`` gave for the test images.
    """
    try:
        target = application.spec.answers
        write_scores(folder, "test", target, scores, faults, f"{application.origin}, test")
        tested = application.tested
        unread = {fault.index for fault in faults[len(tested.faults) :]}
        rows = [row for row in range(len(tested)) if row not in unread]
        _write_hardest(folder, target, tested, rows, logits, labels)
        draw_sheet(_first_batch(task, device), folder.path / "augmented.png")
    except (OSError, VolanoError) as error:
        return [f"pictures of the final test are missing: {error}"]
    except Exception as error:  # noqa: BLE001 - whatever a drawing library meets in a name or a pixel
        return [f"pictures of the final test are missing: {type(error).__name__}: {error}"]
    return []


def _write_hardest(
    folder: RunFolder,
    target: Target,
    test: LabelledImages,
    rows: list[int],
    logits: Tensor,
    labels: Tensor,
) -> None:
    found = hardest(target, logits, labels, _NUM_HARDEST)
    pixels, images = test.in_memory([rows[one.row] for one in found])
    if len(images) < len(found):
        raise DataError(
            "The hardest test images must be readable a second time",
            got=f"{len(images)} of {len(found)}",
        )
    examples = [
        Example(
            image=image.numpy(),
            name=name,
            true=one.true,
            predicted=one.predicted,
            probability=one.probability,
            loss=one.loss,
        )
        for one, image, name in zip(found, pixels, images.names, strict=True)
    ]
    folder.write_json(
        "top-losses.json", {"items": draw_top_losses(examples, folder.path / "top-losses.png")}
    )


def _first_batch(task: Task, device: Device) -> Any:
    """The first images of the run as the network saw them, uint8 [N, channels, height, width]."""
    order = Order(num_examples=len(task.data), batch_size=task.batch_size, seed=task.order_seed)
    batch = device.move(Fetcher(task.data, task.collate, task.order_seed)(order.key(0)).batch)
    if task.augment is not None:
        generator = device.generator()
        generator.manual_seed(seed_of_augmentation(task, 0))
        batch = task.augment(batch, generator)
    return batch[0][:_NUM_AUGMENTED].cpu().numpy()
