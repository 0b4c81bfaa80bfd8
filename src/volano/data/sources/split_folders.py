"""Finds the folders of the splits in a source's folder, by one rule for all kinds of data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from volano.data.sources.folders import subfolders
from volano.data.sources.split_record import TRAIN
from volano.data.sources.tables import check_has_train, split_named, text_of_cell
from volano.record.format import count_text


def split_folders(
    root: Path,
    children: Sequence[Path],
    notices: list[str],
    holds: Callable[[Path], bool] | None = None,
) -> Mapping[str, Path] | None:
    """Returns the folder of each split, by the usual names; None if there is none to train on, and
    the whole folder is meant. Of two for one split the second is left out, which ``notices`` get.

    ``holds``: checks whether a folder holds anything that counts, if it is to lie in folders of
    classes. A class may be called train too, next to bus and car: then no folder within it holds
    any.

    Raises:
        DataError: there are a validation and a test set, and none to train on.
    """
    parts: dict[str, Path] = {}
    said = []
    for folder in children:
        split = split_named(folder.name)
        if split is not None and parts.setdefault(split, folder) is not folder:
            said.append(
                f"{folder.name}/ is not read: {parts[split].name}/ is the {split} set already"
            )
    check_has_train(parts, root)
    if TRAIN not in parts:
        return None
    if holds is not None and _is_class(parts, children, holds):
        notices.append(
            f"{parts[TRAIN].name}/ is taken for a class, for it has no folders of classes, and "
            "others lie beside it"
        )
        return None
    notices += said
    return parts


def _is_class(
    parts: Mapping[str, Path], children: Sequence[Path], holds: Callable[[Path], bool]
) -> bool:
    if len(parts) > 1 or any(map(holds, subfolders(parts[TRAIN], set()))):
        return False
    others = (child for child in children if child != parts[TRAIN] and holds(child))
    return sum(1 for _ in others) > 1 and holds(parts[TRAIN])


def class_folders(
    folder: Path, runs: set[Path], known: Collection[str], notices: list[str]
) -> dict[str, list[Path]]:
    """Returns the folders of each class in a folder, by its name, as a table writes it: without
    blanks around it, and with each letter in one of the ways in which systems write it. ``known``:
    a run's classes, which stay as the run writes them."""
    found: dict[str, list[Path]] = {}
    for child in subfolders(folder, runs):
        found.setdefault(_class_named(child.name, known), []).append(child)
    for name, folders in found.items():
        if len(folders) > 1:
            written = ", ".join(ascii(one.name) for one in folders)
            notices.append(f"folders of {folder.name}/ are one class, {name}: {written}")
    return found


def files_by_class(
    folder: Path,
    listed: Callable[[Path], Sequence[Path]],
    runs: set[Path],
    known: Collection[str],
    notices: list[str],
) -> dict[str, list[Path]]:
    """Returns what ``listed`` lists in the folders of each class; see :func:`class_folders`."""
    found = class_folders(folder, runs, known, notices).items()
    return {
        name: [path for child in children for path in listed(child)] for name, children in found
    }


def _class_named(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    plain = text_of_cell(name) or name
    return next((one for one in known if text_of_cell(one) == plain), plain)


def left_beside(
    root: Path,
    read: Sequence[Path],
    children: Sequence[Path],
    listed: Callable[[Path], Sequence[Path]],
    is_one: Callable[[str], bool],
    what: str,
) -> list[str]:
    """Returns in words what lies next to the folders that are read.

    Args:
        root: the source's folder.
        read: its folders that are read.
        children: all of its folders.
        listed: lists what counts in a folder and below it.
        is_one: checks by its name whether a file counts.
        what: what that is, in words ("clips").
    """
    counts = {f"in {child.name}/": len(listed(child)) for child in children if child not in read}
    counts["in no folder"] = len(loose_in(root, is_one))
    found = ", ".join(f"{count:,} {place}" for place, count in counts.items() if count)
    names = " and ".join(f"{part.name}/" for part in read)
    return [f"{what} are read from {names}; left out: {found}"] if found else []


def loose_in_words(folder: Path, is_one: Callable[[str], bool], what: str) -> list[str]:
    """Returns in words how many lie beside the class folders of a folder; nothing if none does."""
    num_loose = len(loose_in(folder, is_one))
    where = f"next to the class folders of {folder.name}/"
    found = count_text(num_loose, what.removesuffix("s"))
    return [f"left out: {found} {where}"] if num_loose else []


def loose_in(folder: Path, is_one: Callable[[str], bool]) -> list[Path]:
    """Returns the files that count in a folder itself."""
    return [path for path in folder.iterdir() if is_one(path.name) and path.is_file()]
