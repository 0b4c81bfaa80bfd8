"""The clips in memory, as bytes at one size and rate; and the folders that they come from.

Shapes: N clips, L frames kept of each (``lengths`` says how many are real), T frames that a model
sees, C channels, S pixels a side.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from volano.data.feed.fetch import Fault
from volano.data.feed.quarantine import check_share
from volano.data.sources.fitting import CUT
from volano.data.sources.in_threads import in_threads
from volano.data.sources.split import BY_CONTENT
from volano.data.sources.split_record import TEST, TRAIN, SplitRecord, contradictions
from volano.data.sources.video.clip_files import ClipBudget, decode_clip
from volano.data.sources.video.clip_folders import ClipFile, FoundClips, find_clips
from volano.data.sources.video.clip_format import choose_clip_format
from volano.data.sources.video.clip_pixels import ClipFormat
from volano.data.sources.video.clip_splits import clip_members, clips_again, hold_out_clips
from volano.data.sources.video.clip_tables import clips_of_table, is_table
from volano.errors import DataError, UsageError
from volano.record.files import check_exists
from volano.record.format import count_text

# A file is kept in pieces of at most so many times the frames that a model sees, from which crops
# are drawn.
_MOST_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips, and their classes if there are any.

    Attributes:
        frames: uint8 [N, L, C, S, S]; past a clip's length its last frame is repeated.
        lengths: int64 [N], at least the number of frames that were asked for.
        labels: int64 [N], indices into ``classes``; 0 if there are none.
        classes: names of the classes; empty if the source has none.
        names: name of each clip, for tables and errors.
    """

    frames: Tensor
    lengths: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: Sequence[int] | np.ndarray) -> Clips:
        """Returns the clips at ``rows``, in that order."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        return dataclasses.replace(
            self, frames=self.frames[chosen], lengths=self.lengths[chosen],
            labels=self.labels[chosen], names=tuple(self.names[row] for row in chosen.tolist()),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ClipSets:
    """The clips of a source to train on, and windows of exactly T frames to test on.

    Attributes:
        train: clips of at least T frames.
        test: clips of T frames, of other files.
        fps: frames a second of both.
        is_held_out: whether ``test`` was split off by Volano.
        origin: origin of the clips, in words.
        faults: files that are left out, and why.
        notices: notices for the user.
        splits: which file is in which split; None if they come from no files.
    """

    train: Clips
    test: Clips
    fps: float
    is_held_out: bool
    origin: str
    faults: tuple[Fault, ...] = ()
    notices: tuple[str, ...] = ()
    splits: SplitRecord | None = None


@dataclass(frozen=True, kw_only=True)
class WantedClips:
    """The wishes for the format of clips; what is left open is read off the files.

    Attributes:
        size: pixels a side; None takes the median of the shorter sides, at most 64.
        fps: frames a second; None takes the median of the files', 15 if they are long.
        fit: how frames that are no squares become some.
    """

    size: int | None = None
    fps: float | None = None
    fit: str = CUT


_ANY_FORMAT = WantedClips()


def read_clip_folder(
    root: Path,
    wanted: WantedClips | ClipFormat = _ANY_FORMAT,
    *,
    num_frames: int,
    seed: int = 0,
    held_out_by: str = BY_CONTENT,
    recorded: SplitRecord | None = None,
    whole: bool = False,
) -> ClipSets:
    """Decodes a folder of clips once.

    Args:
        root: clips, or class folders of clips; below train/ and test/ (else val/) if there are
            such. Clips outside of these are left out, with a notice.
        wanted: the format, or what is asked of it.
        num_frames: T; shorter clips are left out, with a notice.
        seed: seed of the hold-out: 15 % of the files if there is no test folder.
        held_out_by: "content", or "place" as runs of earlier versions.
        recorded: which file was in which split of a run, which is then read again; what is missing
            and new is said.
        whole: whether each file, of any length, is one example of T frames spread over it, and
            its folder a class. ``root`` may be a table of files and labels then.

    Raises:
        UsageError: ``root`` is not a folder, or is a run's.
        DataError: it holds nothing that can be trained on.
    """
    known = () if recorded is None else recorded.classes
    found = _found_in(root, may_be_table=whole, known=known)
    root, files, classes = found.root, found.files, found.classes
    _check_classes(found, are_needed=whole)
    members = clip_members(files, classes, root)
    said: tuple[str, ...] = ()
    if recorded is not None:
        said = recorded.changes(members, "clips")
        files, members = clips_again(files, members, recorded, root)
        classes = recorded.classes
    changes: tuple[str, ...] = ()
    if isinstance(wanted, WantedClips):
        paths, how = [file.path for file in files], dataclasses.asdict(wanted)
        wanted, changes = choose_clip_format(paths, num_frames, **how)
    budget = ClipBudget()
    decoded = _decode_all(files, wanted, num_frames, budget, whole=whole)
    some = dataclasses.replace(decoded, root=root, classes=classes)
    is_held_out = recorded is None and not any(file.is_test for file in files)
    if is_held_out:
        keys = [member.key for member in members]
        train_rows, test_rows = hold_out_clips(
            files, some.frames, keys, classes, seed, held_out_by, least=2 if whole else 0
        )
    else:
        test_rows = [row for row in some.frames if files[row].is_test]
        train_rows = [row for row in some.frames if not files[row].is_test]
    _check_trained(some, train_rows, test_rows, each_class=whole)
    num_left = len(some.frames) - len(train_rows) - len(test_rows)
    left = [f"left out: {num_left:,} exact copies of held-out clips"] if num_left else []
    parts = {TRAIN: [members[row] for row in train_rows], TEST: [members[row] for row in test_rows]}
    torn = contradictions(parts[TRAIN], "clips")
    return ClipSets(
        train=some.packed(train_rows, budget),
        test=some.windows(test_rows),
        fps=wanted.fps,
        is_held_out=is_held_out,
        origin=f"{len(some.frames)} clips in {root.name}",
        faults=some.faults,
        notices=(*found.notices, *said, *changes, *some.notices, *left, *torn),
        splits=SplitRecord(classes=classes, parts=parts),
    )


def _found_in(root: Path, *, may_be_table: bool, known: Sequence[str] = ()) -> FoundClips:
    if may_be_table and is_table(root):
        return clips_of_table(root, known)
    check_exists(root, remedy=None if may_be_table else "Omit `path` to train on the sample")
    if not root.is_dir():
        raise UsageError(
            "Clips must come from a folder" + (" or a table" if may_be_table else ""),
            got=f"{root}, which is a file",
        )
    return find_clips(root, known)


def _check_classes(found: FoundClips, *, are_needed: bool) -> None:
    if are_needed and not found.classes:
        raise DataError(
            "Clips to classify must lie in class folders, or stand in a table with their labels",
            got=f"{len(found.files)} in {found.root} without",
            remedy="Put the clips of each class into a folder of its own, and no others next to it",
        )


def _check_trained(
    some: _Decoded, train_rows: list[int], test_rows: list[int], *, each_class: bool
) -> None:
    """Raises DataError if there is nothing to train on or to test on, or of a class nothing to
    train on."""
    why = f"; left out: {some.faults[0]}" if some.faults else ""
    if not train_rows or not test_rows:
        raise DataError(
            "There must be at least two different clips, one to train on and one held out",
            got=f"{len(some.frames)} usable in {some.root}{why}",
            remedy="Add clips",
        )
    trained = {some.files[row].label for row in train_rows}
    empty = [name for label, name in enumerate(some.classes) if label not in trained]
    if empty and each_class:
        raise DataError(
            "Every class must have readable clips to train on",
            got=f"none of {', '.join(empty[:5])}{why}",
            remedy="Add clips, or remove the class",
        )


# ---- decoding


def spread_frames(frames: np.ndarray, count: int) -> np.ndarray:
    """Returns ``count`` frames at equal distances, uint8 [count, C, S, S]; of fewer frames some
    are repeated."""
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(np.int64)]


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """The usable clips of a source.

    Attributes:
        files: all files.
        frames: of each usable file by its row, uint8 [F, C, S, S].
        num_frames: T.
        faults, notices: the others, and what is said of them.
        classes: names of the classes.
        root: folder from which on clips are named.
    """

    files: Sequence[ClipFile]
    frames: dict[int, np.ndarray]
    num_frames: int
    faults: tuple[Fault, ...]
    notices: tuple[str, ...]
    classes: tuple[str, ...] = ()
    root: Path = Path()

    def packed(self, rows: Sequence[int], budget: ClipBudget) -> Clips:
        """Packs training clips into one array: files in pieces of at most L frames, the last piece
        as long as it is and padded."""
        lengths = {row: len(self.frames[row]) for row in rows}
        most = min(max(lengths.values()), _MOST_WINDOWS * self.num_frames)
        pieces = [
            (row, start, min(most, lengths[row] - start))
            for row in rows
            for start in range(0, lengths[row], most)
            if start == 0 or lengths[row] - start >= self.num_frames
        ]
        frame = self.frames[rows[0]][0]
        # The frames themselves are counted.
        budget.add(sum(most - length for _, _, length in pieces) * frame.nbytes)
        frames = np.empty((len(pieces), most, *frame.shape), dtype=np.uint8)
        for number, (row, start, length) in enumerate(pieces):
            frames[number, :length] = self.frames[row][start : start + length]
            frames[number, length:] = frames[number, length - 1]
        return self._clips(frames, [piece[2] for piece in pieces], [piece[0] for piece in pieces])

    def windows(self, rows: Sequence[int]) -> Clips:
        """Cuts every test file into windows of T frames that do not overlap."""
        size = self.num_frames
        places = [
            (row, start)
            for row in rows
            for start in range(0, len(self.frames[row]) - size + 1, size)
        ]
        frames = np.stack([self.frames[row][start : start + size] for row, start in places])
        return self._clips(frames, [size] * len(places), [row for row, _ in places])

    def _clips(self, frames: np.ndarray, lengths: list[int], rows: list[int]) -> Clips:
        return Clips(
            frames=torch.from_numpy(frames),
            lengths=torch.tensor(lengths),
            labels=torch.tensor([self.files[row].label for row in rows]),
            classes=self.classes,
            names=tuple(os.path.relpath(self.files[row].path, self.root) for row in rows),
        )


def _decode_all(
    files: Sequence[ClipFile],
    clip_format: ClipFormat,
    num_frames: int,
    budget: ClipBudget,
    *,
    whole: bool = False,
) -> _Decoded:
    """Decodes the files; see :func:`read_clip_folder`.

    Raises:
        DataError: too many cannot be read, or none is long enough.
    """
    said: list[list[str]] = [[] for _ in files]

    def decode(row: int) -> np.ndarray | str:
        try:
            frames = decode_clip(files[row].path, clip_format, budget=budget, said=said[row])
        except OSError as error:
            return str(error) or type(error).__name__
        if not whole:
            return frames
        kept = spread_frames(frames, num_frames)
        budget.add(kept.nbytes - frames.nbytes)  # the others are let go
        return kept

    outcomes = dict(enumerate(in_threads(decode, range(len(files)))))
    decoded = {row: frames for row, frames in outcomes.items() if not isinstance(frames, str)}
    unreadable = [
        Fault(row, str(files[row].path), f"unreadable: {reason}")
        for row, reason in outcomes.items()
        if isinstance(reason, str)
    ]
    if len(unreadable) > 1:  # a single one of a few is left out as well
        check_share(unreadable, len(files), "clips")
    lengths = {row: len(frames) for row, frames in decoded.items()}
    too_short = _too_short(files, lengths, num_frames, clip_format.fps)
    short = {fault.index for fault in too_short}
    notices = _fault_notices(unreadable, "could not be read")
    notices += _fault_notices(too_short, "are too short")
    damaged = [(file.path, texts) for file, texts in zip(files, said, strict=True) if texts]
    if damaged:
        path, texts = damaged[0]
        num = count_text(len(damaged), "damaged clip")
        notices.append(f"{num}; the first: {path}: {', '.join(texts)}")
    return _Decoded(
        files=files,
        frames={row: frames for row, frames in decoded.items() if row not in short},
        num_frames=num_frames,
        faults=(*unreadable, *too_short),
        notices=tuple(notices),
    )


def _too_short(
    files: Sequence[ClipFile], lengths: dict[int, int], num_frames: int, fps: float
) -> list[Fault]:
    """Returns the readable files of fewer than T frames.

    Raises:
        DataError: all are.
    """
    rate = f"{fps:g} a second"
    if all(length < num_frames for length in lengths.values()):
        raise DataError(
            f"A clip must have at least {num_frames} frames",
            got=f"{max(lengths.values(), default=0)} in the longest, at {rate}",
            remedy="Choose fewer `frames`, or a higher `fps`",
        )
    return [
        Fault(row, str(files[row].path), f"too short: {n} frames at {rate}, asked {num_frames}")
        for row, n in lengths.items()
        if n < num_frames
    ]


def _fault_notices(faults: Sequence[Fault], words: str) -> list[str]:
    if not faults:
        return []
    return [
        f"left out, listed in quarantine.jsonl: {len(faults)} clips {words}; the first: {faults[0]}"
    ]


# ---- clips like others


def read_clips_like(
    root: Path,
    clip_format: ClipFormat,
    *,
    num_frames: int,
    classes: tuple[str, ...],
    whole: bool = False,
) -> tuple[Clips, tuple[Fault, ...], tuple[str, ...]]:
    """Reads windows of T frames of every clip in a folder, in the format and with the classes of
    another set; only of the test part if the folder has a train/ and a test/ (else val/).
    ``whole``: see :func:`read_clip_folder`.

    Raises:
        UsageError: ``root`` is not a folder, or is a run's.
        DataError: nothing there can be used, or its classes are not among ``classes``.
    """
    if not root.is_dir() and not (whole and is_table(root)):
        raise UsageError("Clips to evaluate on must lie in a folder", got=str(root))
    found = _found_in(root, may_be_table=whole, known=classes)
    root, own_classes = found.root, found.classes
    unknown = sorted(set(own_classes) - set(classes))
    if classes and (unknown or not own_classes):
        raise DataError(
            "Clips to evaluate on must lie in sub-folders named like the run's classes",
            got=f"also {', '.join(unknown[:5])}" if unknown else f"none in {root}",
            remedy=f"The run knows {', '.join(classes[:10])}",
        )
    has_test = any(file.is_test for file in found.files)
    part = ("clips to train on are not evaluated",) if has_test else ()
    numbers = [classes.index(name) for name in own_classes] if classes else None
    files = [
        dataclasses.replace(file, label=0 if numbers is None else numbers[file.label], is_test=True)
        for file in found.files
        if file.is_test or not has_test
    ]
    _, changes = choose_clip_format(
        [file.path for file in files],
        num_frames,
        size=clip_format.size,
        fps=clip_format.fps,
        channels=clip_format.channels,
        fit=clip_format.fit,
    )
    some = _decode_all(files, clip_format, num_frames, ClipBudget(), whole=whole)
    some = dataclasses.replace(some, root=root, classes=classes)
    notices = (*found.notices, *part, *changes, *some.notices)
    return some.windows(sorted(some.frames)), some.faults, notices
