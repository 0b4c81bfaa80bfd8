"""Reads labelled images from any source: class folders, IDX files, tables, the embedded digits."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from volano.data.feed.fetch import Fault
from volano.data.sources.digits import read_digits
from volano.data.sources.fitting import CUT
from volano.data.sources.folders import file_named, refuse_run
from volano.data.sources.image.decoding import (
    ANY_FORMAT,
    ImageFile,
    PixelFormat,
    WantedFormat,
    choose_format,
)
from volano.data.sources.image.idx_files import read_idx
from volano.data.sources.image.image_folders import find_class_folders
from volano.data.sources.image.images import (
    LabelledImages,
    class_names,
    decode_all,
    leave_in_files,
    why_they_do_not_fit,
)
from volano.data.sources.split_record import TRAIN
from volano.data.sources.tables import (
    PATH_COLUMNS,
    TABLE_SUFFIXES,
    find_column,
    labels_of,
    read_rows,
    split_of_row,
    with_columns,
)
from volano.data.sources.targets import CLASSES, TargetFormat, Targets, read_targets
from volano.errors import DataError, UsageError
from volano.record.files import check_exists


@dataclass(frozen=True, kw_only=True)
class ImageSets:
    """The images of a source by split. ``valid`` and ``test`` are None if the source names no such
    split; ``notices`` say what was left aside, and ``decoding``, one of them, that the images do
    not fit into memory; ``faults`` are rows of a table that could not be read. ``pixel_range``
    and ``fit`` are those of their format."""

    train: LabelledImages
    valid: LabelledImages | None
    test: LabelledImages | None
    origin: str
    notices: tuple[str, ...] = ()
    decoding: str | None = None
    faults: tuple[Fault, ...] = ()
    pixel_range: tuple[float, float] | None = None
    fit: str = CUT

    def targeted(self, targets: Targets) -> ImageSets:
        """Returns the same with the targets of a table; see :meth:`LabelledImages.targeted`."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        given: dict[str, Any] = {
            name: part.targeted(targets) for name, part in parts.items() if part is not None
        }
        return dataclasses.replace(self, **given)


_ANY_TARGET = TargetFormat()
_SUFFIX = re.compile(r"\.\w{1,8}\Z", flags=re.ASCII)


def read_image_sets(
    path: Path | None,
    wanted: WantedFormat | PixelFormat = ANY_FORMAT,
    *,
    least_classes: int = 2,
    in_files: bool | None = None,
    classes: Sequence[str] = (),
    target: TargetFormat = _ANY_TARGET,
) -> ImageSets:
    """Reads any of the sources, which is recognized by what lies at ``path``.

    Args:
        path: a folder of class folders (with or without train/ and val/ or test/), a folder of IDX
            files, a .csv or .parquet table of path and label, or None for scikit-learn's digits.
        wanted: the format to which files are decoded, or what is asked of it.
        least_classes: least number of classes; images to evaluate on may have one.
        in_files: whether images stay in their files; None decides by the memory that is free now.
            To read images again for the same run, give the decision of the first time: it is part
            of the experiment, because unreadable images, and copies that are stored differently,
            are split and digested in another way in memory.
        classes: a run's classes, by which labels are read: 1.0 in a table may be its 1 or its True.
        target: what a table says of the images.

    Raises:
        UsageError: ``path`` does not exist, is none of these, or is a run's folder.
        DataError: it holds nothing that can be trained on.
    """
    if path is None:
        _refuse_decoding(wanted, "the embedded digits")
        target.check_no_table("the embedded digits")
        return _embedded_digits()
    sample = None if classes else "Omit `path` to train on the embedded sample"
    check_exists(path, remedy=sample)
    if path.is_file():
        if path.suffix.lower() not in TABLE_SUFFIXES:
            raise UsageError(
                "Images must come from a folder of class folders, a folder of IDX files, or a .csv "
                "or .parquet table",
                got=str(path),
            )
        return _from_table(path, wanted, least_classes, in_files, target, classes)
    refuse_run(path)
    target.check_no_table(f"the folder {path}")
    if _idx_files(path):
        _refuse_decoding(wanted, "IDX files")
        return _from_idx(path, least_classes)
    found = find_class_folders(path, classes)
    _check_classes(found.classes, str(found.train), least_classes)
    sets = _decoded(found.labelled(), found.classes, path, wanted, in_files)
    return dataclasses.replace(sets, notices=(*found.notices, *sets.notices))


def _refuse_decoding(wanted: WantedFormat | PixelFormat, kind: str) -> None:
    if isinstance(wanted, WantedFormat) and (wanted.size or wanted.fit not in (None, CUT)):
        raise UsageError(
            "`image_size` and `fit` are only for files that are decoded",
            got=f"{wanted.size or wanted.fit} with {kind}, which are squares of their own size",
        )


def _embedded_digits() -> ImageSets:
    pixels, labels = read_digits()
    images = _from_arrays(pixels[:, None], labels, tuple("0123456789"), "digit")
    return ImageSets(
        train=images, valid=None, test=None, origin="scikit-learn's digits (1,797 of 8 x 8)"
    )


# ---- tables


def _from_table(
    path: Path,
    wanted: WantedFormat | PixelFormat,
    least_classes: int,
    in_files: bool | None,
    target: TargetFormat,
    known: Sequence[str],
) -> ImageSets:
    faults: list[Fault] = []

    def note(place: str, reason: str) -> None:
        faults.append(Fault(len(faults), place, reason))

    def find(row: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        return find_column(row, PATH_COLUMNS, path, "images"), target.columns_of(row, path)

    every = read_rows(path, on_fault=note, names=target.columns)
    rows = list(with_columns(every, find, path, note))
    if not rows:
        reason = f"; {faults[0]}" if faults else ""
        raise DataError("A table of images must have rows", got=f"{path}, which has none{reason}")
    targets = _targets_of(rows, path, target, least_classes, known)
    files: dict[str, list[ImageFile]] = {}
    unpacked: list[Path] = []
    for place, (number, row, (path_column, _)) in enumerate(rows):
        picture = _picture_of(row[path_column], number, path, unpacked)
        if isinstance(picture, str):
            note(f"{path}:{number}", picture)
            continue
        split = split_of_row(row, f"{path}:{number}")
        label = int(targets.values[place]) if targets.kind == CLASSES else place
        files.setdefault(split, []).append(ImageFile(path=picture, label=label))
    if TRAIN not in files:
        raise DataError(
            "A table of images must have rows to train on",
            got=f"only {', '.join(files) or 'rows without an image'} in {path}",
        )
    sets = _decoded(files, targets.names, path.parent, wanted, in_files)
    if targets.kind != CLASSES:
        sets = sets.targeted(targets)
    notices = (*targets.notices, *sets.notices)
    return dataclasses.replace(sets, notices=notices, faults=tuple(faults))


def _targets_of(
    rows: Sequence[tuple[int, dict[str, Any], tuple[str, tuple[str, ...]]]],
    path: Path,
    wanted: TargetFormat,
    least_classes: int,
    known: Sequence[str],
) -> Targets:
    """Returns the targets of a table's rows, classes as int64 [N]."""
    names, numbers = rows[0][2][1], [number for number, *_ in rows]
    columns = {
        name: [row[found[place]] for _, row, (_, found) in rows] for place, name in enumerate(names)
    }
    targets = read_targets(columns, numbers, path, wanted)
    if targets.kind != CLASSES:
        return targets
    labels, said = labels_of(columns[names[0]], numbers, path, known)
    classes = class_names(labels)
    _check_classes(classes, str(path), least_classes)
    number_of = {name: number for number, name in enumerate(classes)}
    values = np.array([number_of[label] for label in labels], dtype=np.int64)
    return Targets(kind=CLASSES, names=classes, values=values, notices=(*targets.notices, *said))


def _picture_of(cell: Any, number: int, table: Path, unpacked: list[Path]) -> Path | str:
    """Returns the file of a row, or in words why it has none: named by its cell, or with the bytes
    of a cell ``{bytes, path}`` as Hugging Face writes them, in a temporary folder (``unpacked``)
    until the process ends."""
    name = cell.get("path") if isinstance(cell, dict) else cell
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if content is None and isinstance(cell, bytes):
        name, content = None, cell
    if content is None:
        name = name.strip() if isinstance(name, str) else ""
        return file_named(name, table.parent) if name else "without an image"
    if not isinstance(content, bytes):
        return f"the bytes of an image are {type(content).__name__}"
    if not unpacked:
        unpacked.append(Path(tempfile.mkdtemp(prefix="volano-images-")))
        atexit.register(shutil.rmtree, unpacked[0], ignore_errors=True)
    suffix = _SUFFIX.search(str(name or ""))  # of a name that a stranger wrote
    file = unpacked[0] / f"{number:09}{suffix[0] if suffix else ''}"
    file.write_bytes(content)
    return file


# ---- IDX (http://yann.lecun.com/exdb/mnist, "the IDX file format")


def _from_idx(root: Path, least_classes: int) -> ImageSets:
    files = _idx_files(root)
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split in ("train", "test"):
        images, labels = files.get((split, "images")), files.get((split, "labels"))
        if images is None and labels is None and split == "test":
            continue
        if images is None or labels is None:
            raise DataError(
                "IDX images and labels must come in pairs",
                got=f"{root} without the {split} {'images' if images is None else 'labels'}",
                remedy="The MNIST family names them train-images-idx3-ubyte and "
                "train-labels-idx1-ubyte, .gz or not",
            )
        parts[split] = (read_idx(images, 3), read_idx(labels, 1))
        _check_idx(images, *parts[split], parts["train"][0])
    classes = class_names(str(label) for label in np.unique(parts["train"][1]))
    _check_classes(classes, str(root), least_classes)
    numbers = {name: number for number, name in enumerate(classes)}
    sets = {}
    for split, (pixels, raw) in parts.items():
        unknown = set(np.unique(raw)) - {int(name) for name in classes}
        if unknown:
            raise DataError(
                "Every class must have images to train on",
                got=f"only in the test labels: {sorted(unknown)}",
            )
        labels = np.array([numbers[str(label)] for label in raw], dtype=np.int64)
        sets[split] = _from_arrays(pixels[:, None], labels, classes, split)
    return ImageSets(
        train=sets["train"], valid=None, test=sets.get("test"), origin=f"IDX files in {root.name}"
    )


def _check_idx(file: Path, pixels: np.ndarray, labels: np.ndarray, trained: np.ndarray) -> None:
    if 0 in pixels.shape or pixels.shape[1:] != trained.shape[1:]:
        raise DataError(
            "IDX images must have pixels, and those to test on the size of those to train on",
            got=f"{file.name} of {' x '.join(map(str, pixels.shape))}",
        )
    if len(pixels) != len(labels):
        raise DataError(
            "IDX images and labels must be equal in number",
            got=f"{len(pixels):,} in {file.name} and {len(labels):,} labels",
        )


def _idx_files(root: Path) -> dict[tuple[str, str], Path]:
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        if not path.is_file() or "idx" not in name:
            continue
        split = "train" if name.startswith("train") else None
        split = "test" if name.startswith(("t10k", "test")) else split
        kind = "images" if "images" in name else "labels" if "labels" in name else None
        if split and kind:
            found.setdefault((split, kind), path)
    return found


# ---- shared


def _from_arrays(
    pixels: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], word: str
) -> LabelledImages:
    return LabelledImages(
        images=torch.from_numpy(np.array(pixels)),
        labels=torch.from_numpy(labels),
        classes=classes,
        names=tuple(f"{word}-{number}" for number in range(len(labels))),
    )


def _decoded(
    files: dict[str, list[ImageFile]],
    classes: tuple[str, ...],
    root: Path,
    wanted: WantedFormat | PixelFormat,
    in_files: bool | None,
) -> ImageSets:
    said: list[str] = []
    is_open = isinstance(wanted, WantedFormat)
    pixel_format = choose_format(files[TRAIN], wanted, said=said) if is_open else wanted
    if in_files is None:
        reason = why_they_do_not_fit(sum(map(len, files.values())), pixel_format)
    else:
        reason = "as was decided when the run began" if in_files else None
    # Decided for all splits at once: the memory that the first takes must not change the answer for
    # the second.
    read = functools.partial(decode_all, checks_memory=False) if reason is None else leave_in_files
    sets = {split: read(part, classes, pixel_format, root=root) for split, part in files.items()}
    decoding = (
        None if reason is None else f"images are decoded again whenever they are needed: {reason}"
    )
    return ImageSets(
        train=sets["train"],
        valid=sets.get("valid"),
        test=sets.get("test"),
        origin=str(root.name or root),
        notices=(*said, *(() if decoding is None else (decoding,))),
        decoding=decoding,
        pixel_range=pixel_format.pixel_range,
        fit=pixel_format.fit,
    )


def _check_classes(classes: tuple[str, ...], where: str, least: int) -> None:
    if len(classes) < least:
        raise DataError(
            "A classifier needs at least two classes",
            got=f"{len(classes)} ({', '.join(classes)}) in {where}",
            remedy="Add a folder or label of another class",
        )
