"""The labelled images as bytes at one size, in memory or in their files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from volano.data.arrays import Arrays
from volano.data.feed.fetch import Fault
from volano.data.feed.quarantine import MAX_SHARE, check_share
from volano.data.sources.image.decoding import ImageFile, PixelFormat, decode
from volano.data.sources.image.image_files import ImageFiles, ImageFilesDataset
from volano.data.sources.in_threads import in_threads
from volano.data.sources.split_record import (
    SplitMember,
    content_key,
    file_key,
    grouped,
    member_rows,
    members_of,
)
from volano.data.sources.targets import CLASSES, Targets, target_texts
from volano.data.sources.targets import class_names as class_names
from volano.errors import DataError

# The largest number of images that are decoded to learn what a recipe needs to know, if images stay
# in their files.
_MOST_SAMPLED, _MOST_SAMPLED_BYTES = 2000, 256 * 2**20
_PART = 512


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The images and their classes.

    Attributes:
        images: uint8 [N, channels, height, width]; files if that would not fit into memory.
        labels: int64 [N], indices into ``classes``; of other kinds of targets as ``Targets`` has
            them.
        classes: names of the classes, or of the targets.
        names: name of each image, for tables and errors.
        faults: files that could not be read, left out of the above; ``index`` is the place among
            all.
        fault_labels: their classes, as ``labels``, for a split that does not depend on which files
            can be read.
        keys: key of each image's content; empty: of its pixels.
        kind: the kind of the targets.
    """

    images: Tensor | ImageFiles
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    faults: tuple[Fault, ...] = field(default=())
    fault_labels: tuple[int, ...] = field(default=())
    keys: tuple[str, ...] = field(default=(), repr=False)
    kind: str = CLASSES

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int] | np.ndarray) -> LabelledImages:
        """Returns the images at ``indices``, in that order, without the faults."""
        rows = torch.as_tensor(np.asarray(indices, dtype=np.int64))
        images = self.images
        are_files = isinstance(images, ImageFiles)
        return LabelledImages(
            images=images.select(rows.tolist()) if are_files else images.index_select(0, rows),
            labels=self.labels.index_select(0, rows),
            classes=self.classes,
            names=tuple(self.names[row] for row in rows.tolist()),
            keys=tuple(self.keys[row] for row in rows.tolist()) if self.keys else (),
            kind=self.kind,
        )

    def members(self) -> list[SplitMember]:
        """Returns the images as members of a split, in their order."""
        keys, images = self.keys, self.images
        if not keys and isinstance(images, ImageFiles):
            keys = tuple(map(file_key, images.paths))
        elif not keys and isinstance(images, Tensor):
            keys = tuple(content_key(image.tobytes()) for image in images.numpy())
        labels = target_texts(self.kind, self.classes, self.labels)
        return members_of(keys, labels, self.classes, self.names)

    def copies(self) -> list[list[int]]:
        """Returns all rows, those equal in every pixel together; of files, those equal in every
        byte."""
        if isinstance(self.images, ImageFiles):
            return self.images.copies()
        pixels = self.images.numpy()
        return grouped(hashlib.blake2b(one.tobytes(), digest_size=16).digest() for one in pixels)

    def in_terms_of(self, classes: tuple[str, ...]) -> LabelledImages:
        """Returns the same images with their classes numbered as others are, among which they
        must be; targets of other kinds have their order already."""
        if self.kind != CLASSES:
            return self
        numbers = torch.tensor([classes.index(name) for name in self.classes])
        return replace(self, labels=numbers[self.labels], classes=classes)

    def targeted(self, targets: Targets) -> LabelledImages:
        """Returns the same images, whose labels are rows of a table, with the targets there."""
        labels = torch.from_numpy(targets.values)[self.labels]
        return replace(self, labels=labels, classes=targets.names, kind=targets.kind)

    def dataset(
        self, wanted: Callable[[Tensor], Tensor] = lambda labels: labels
    ) -> Arrays | ImageFilesDataset:
        """Returns a map-style dataset of (image, label); ``wanted``: what a loss wants of the
        labels."""
        labels = wanted(self.labels)
        if isinstance(self.images, ImageFiles):
            return ImageFilesDataset(self.images, labels)
        return Arrays((self.images, labels))

    def in_memory(self, indices: Sequence[int] | np.ndarray) -> tuple[Tensor, LabelledImages]:
        """Returns the images at ``indices``: the pixels uint8 [n, channels, height, width], and all
        about them. Files that cannot be read are left out and stand in ``faults``."""
        part = self.select(indices)
        files = part.images
        if not isinstance(files, ImageFiles):
            return files, part
        # Of the cache if there is one.
        pixels, outcomes = _read_all(lambda row: files[row].numpy(), files.shape)
        good = [row for row, reason in enumerate(outcomes) if reason is None]
        faults = tuple(
            Fault(int(indices[row]), str(files.paths[row]), reason)
            for row, reason in enumerate(outcomes)
            if reason is not None
        )
        images = torch.from_numpy(pixels if not faults else pixels[good])
        return images, replace(part.select(good), images=images, faults=faults)

    def parts(self) -> Iterator[tuple[Tensor, LabelledImages]]:
        """Yields all images, as :meth:`in_memory`, a part at a time if they are files."""
        if not isinstance(self.images, ImageFiles):
            yield self.images, self
            return
        for start in range(0, len(self), _PART):
            yield self.in_memory(range(start, min(start + _PART, len(self))))

    def first(self, num: int) -> tuple[Tensor, LabelledImages]:
        """Returns the first ``num`` images, as :meth:`in_memory`."""
        return self.in_memory(range(min(num, len(self))))

    def sample(self) -> tuple[Tensor, LabelledImages]:
        """Returns all images if they are in memory; otherwise up to 2,000 from everywhere, decoded,
        as :meth:`in_memory`.

        Raises:
            DataError: more than a tenth of them are unreadable.
        """
        if not isinstance(self.images, ImageFiles):
            return self.images, self
        most = min(
            _MOST_SAMPLED, max(1, _MOST_SAMPLED_BYTES // int(np.prod(self.images.shape[1:])))
        )
        rows = range(0, len(self), -(-len(self) // most))
        pixels, about = self.in_memory(rows)
        check_share(about.faults, len(rows), "images")
        return pixels, about


def picked(
    parts: Sequence[LabelledImages], wanted: Sequence[SplitMember], classes: tuple[str, ...]
) -> LabelledImages:
    """Returns the wanted images out of the parts of a source, in the order of ``wanted`` and as
    being of ``classes`` if they have some; those that are missing are left out."""
    present = [member for part in parts for member in part.members()]
    places = member_rows(wanted, present)
    start, chosen = 0, []
    order: list[int] = []
    for part in parts:
        own = [place for place in places if start <= place < start + len(part)]
        if own or (part is parts[-1] and not chosen):
            chosen.append(part.select([place - start for place in own]))
        order += own
        start += len(part)
    row_of = {place: row for row, place in enumerate(order)}
    names = tuple(name for part in chosen for name in part.names)
    kind, labels = parts[0].kind, torch.cat([part.labels for part in chosen])
    if kind == CLASSES:
        numbers = [classes.index(present[place].label) for place in order]
        labels = torch.tensor(numbers, dtype=torch.int64)
    joined = LabelledImages(
        images=_joined([part.images for part in chosen]),
        labels=labels,
        classes=classes if kind == CLASSES else parts[0].classes,
        names=names,
        keys=tuple(present[place].key for place in order),
        kind=kind,
    )
    return joined.select([row_of[place] for place in places])


def _joined(images: Sequence[Tensor | ImageFiles]) -> Tensor | ImageFiles:
    if len(images) == 1:
        return images[0]
    files = [part for part in images if isinstance(part, ImageFiles)]
    if len(files) == len(images):
        return ImageFiles(
            tuple(path for part in files for path in part.paths), files[0].pixel_format
        )
    return torch.cat([part for part in images if isinstance(part, Tensor)])


def decode_all(
    files: Sequence[ImageFile],
    classes: tuple[str, ...],
    pixel_format: PixelFormat,
    *,
    root: Path,
    max_share: float = MAX_SHARE,
    checks_memory: bool = True,
) -> LabelledImages:
    """Decodes all files into memory, and puts unreadable ones aside.

    Raises:
        DataError: more than ``max_share`` are unreadable, or they do not fit into memory, which is
            not checked if ``checks_memory`` is False.
    """
    reason = why_they_do_not_fit(len(files), pixel_format) if checks_memory else None
    if reason is not None:
        raise DataError("The decoded images may take at most half of the free memory", got=reason)
    shape = (len(files), pixel_format.channels, pixel_format.size, pixel_format.size)
    images, outcomes = _read_all(lambda row: decode(files[row].path, pixel_format), shape)
    faults = tuple(
        Fault(row, str(files[row].path), reason)
        for row, reason in enumerate(outcomes)
        if reason is not None
    )
    check_share(faults, len(files), "images", max_share)
    good = [row for row, reason in enumerate(outcomes) if reason is None]
    labels = [-1 if file.label is None else file.label for file in files]
    return LabelledImages(
        images=torch.from_numpy(images if len(good) == len(files) else images[good]),
        labels=torch.tensor([labels[row] for row in good]),
        classes=classes,
        names=tuple(_relative(files[row].path, root) for row in good),
        faults=faults,
        fault_labels=tuple(labels[fault.index] for fault in faults),
        keys=tuple(in_threads(file_key, [files[row].path for row in good])),
    )


def _read_all(
    read: Callable[[int], np.ndarray], shape: tuple[int, ...]
) -> tuple[np.ndarray, list[str | None]]:
    """Returns the pixels of all rows, and why a row could not be read (its pixels are then
    undefined)."""
    images = np.empty(shape, dtype=np.uint8)

    def read_into(row: int) -> str | None:
        try:
            images[row] = read(row)
        except OSError as error:
            return str(error) or type(error).__name__
        return None

    return images, in_threads(read_into, range(shape[0]))


def why_they_do_not_fit(num_images: int, pixel_format: PixelFormat) -> str | None:
    """Returns the reason in words, if so many decoded images take more than half of the free
    memory; None if they do not."""
    from volano.device import Device

    num_bytes = num_images * pixel_format.channels * pixel_format.size**2
    free = Device("cpu").free_bytes()
    if free is None or num_bytes <= free // 2:
        return None
    return (
        f"{num_bytes / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free for {num_images:,} images "
        f"of {pixel_format.size} px"
    )


def leave_in_files(
    files: Sequence[ImageFile], classes: tuple[str, ...], pixel_format: PixelFormat, *, root: Path
) -> LabelledImages:
    """Returns all files as images that are decoded when they are asked for; an unreadable file
    shows only then."""
    return LabelledImages(
        images=ImageFiles(tuple(file.path for file in files), pixel_format),
        labels=torch.tensor([-1 if file.label is None else file.label for file in files]),
        classes=classes,
        names=tuple(_relative(file.path, root) for file in files),
        keys=tuple(in_threads(file_key, [file.path for file in files])),
    )


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
