"""The clips of a training, as its options ask for them, whatever is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from volano.apps.targets.classes import OneClass
from volano.apps.video.options import ClipOptions
from volano.data.sources import CUT, ClipFormat, ClipSets, WantedClips, read_clip_folder


def read_clips(
    options: ClipOptions, clip_format: ClipFormat | None, *, size: int | None, **how: Any
) -> ClipSets:
    """Reads the clips that options name.

    Args:
        clip_format: the format of a run's clips; None is what the options want.
        size: the pixels a side that are wanted; None is as the clips have them.
        how: more for ``read_clip_folder``.

    Raises:
        UsageError: they are not there.
        DataError: there is nothing that can be trained on.
    """
    assert options.path is not None
    wanted = WantedClips(size=size, fps=options.fps, fit=options.fit or CUT)
    return read_clip_folder(
        Path(options.path), clip_format or wanted, seed=options.seed,
        held_out_by=options.held_out_by, **how,
    )  # fmt: skip


def clips_in_words(sets: ClipSets, labels: Mapping[str, Sequence[int]]) -> str:
    """Puts into words what was read; ``labels``: the class of each clip by split."""
    parts = {split: SimpleNamespace(labels=own) for split, own in labels.items()}
    target = OneClass(names=sets.train.classes)
    return target.data_in_words("clips", parts, is_held_out=sets.is_held_out)
