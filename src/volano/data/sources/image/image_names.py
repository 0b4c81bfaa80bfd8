"""The names of image files, and the formats that are read: whatever Pillow can open here, plugins
included."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections import Counter
from pathlib import Path

from volano.data.sources.folders import walk

# The usual ones are tried first: some of the others open nearly anything.
_FIRST = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
# Pillow knows them, but has no pixels of them, or has another program make them (Ghostscript).
_WITHOUT_PIXELS = frozenset({"EPS", "MPEG", "BUFR", "GRIB", "HDF5", "WMF"})
_MOST_KINDS_NAMED = 5


@functools.cache
def picture_formats() -> tuple[str, ...]:
    """Returns Pillow's names of the formats that it can open, in the order in which they are
    tried."""
    from PIL import Image

    with contextlib.suppress(ImportError):
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    Image.init()
    # Of metadata and forms that pictures are read without; choose_format counts what is damaged.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # not on standard error
    return (*_FIRST, *(name for name in Image.ID if name not in {*_FIRST, *_WITHOUT_PIXELS}))


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes of files that Pillow can open."""
    from PIL import Image

    formats = set(picture_formats())
    known = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, name in known.items() if name in formats)


def is_image(name: str) -> bool:
    """Checks whether a file's name is that of an image."""
    return not name.startswith(".") and Path(name).suffix.lower() in image_suffixes()


def listed(
    folder: Path, runs: set[Path] | None = None, others: Counter[str] | None = None
) -> list[Path]:
    """Returns the image files below a folder, sorted, hidden ones left out. Folders of runs are
    added to ``runs`` instead, and ``others`` gets the suffixes of files that are not named like an
    image."""
    found = []
    for parent, names in walk(folder, set() if runs is None else runs):
        for name in names:
            if is_image(name):
                found.append(parent / name)
            elif others is not None:
                others[Path(name).suffix.lower() or "(no suffix)"] += 1
    return found


def others_in_words(others: Counter[str]) -> list[str]:
    """Returns in words how many files are left out, by their suffixes."""
    if not others:
        return []
    kinds = [f"{count:,} {suffix}" for suffix, count in others.most_common(_MOST_KINDS_NAMED)]
    if len(others) > len(kinds):
        kinds.append("...")
    hint = "; pillow-heif lets it" if others.keys() & {".heic", ".heif"} else ""
    return [f"files that Pillow does not open as images are left out: {', '.join(kinds)}{hint}"]
