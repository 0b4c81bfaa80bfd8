"""The pictures and clips of a run's folder, as data that stands in the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

# The limit for a page that a browser opens at once and that can be sent by mail. Larger pictures
# stay in their files.
_MOST_BYTES = 12 * 2**20
_TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}


@dataclass(frozen=True, kw_only=True)
class Media:
    """A picture or a clip. ``still`` is its first frame, for readers who want nothing to move;
    sizes are pixels."""

    uri: str
    width: int
    height: int
    still: str = ""
    is_video: bool = False


def read_media(path: Path) -> Media | None:
    """Reads a PNG, GIF or MP4 file; returns None if it does not exist.

    Raises:
        ValueError: the file is damaged or too large to stand in a page; the text says which.
        OSError: it cannot be read.
    """
    if not path.is_file():
        return None
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise ValueError(
            f"{path.name} has {size / 2**20:.0f} MiB, too much for a page; it lies in the run's "
            "folder"
        )
    content = path.read_bytes()
    if path.suffix == ".mp4":
        return Media(uri=_uri(content, ".mp4"), width=0, height=0, is_video=True)
    width, height, still = _measure(content, path.name)
    return Media(uri=_uri(content, path.suffix), width=width, height=height, still=still)


def cut(path: Path, boxes: list[tuple[int, int, int, int]]) -> list[Media]:
    """Cuts parts out of a PNG file: (left, top, right, bottom) in pixels each.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    from PIL import Image

    parts = []
    with Image.open(path, formats=("PNG",)) as sheet:
        for box in boxes:
            if not (0 <= box[0] < box[2] <= sheet.width and 0 <= box[1] < box[3] <= sheet.height):
                raise ValueError(f"{path.name} does not hold {box}")
            part = sheet.crop(box)
            buffer = io.BytesIO()
            part.save(buffer, "PNG", optimize=True)
            parts.append(
                Media(uri=_uri(buffer.getvalue(), ".png"), width=part.width, height=part.height)
            )
    return parts


def _measure(content: bytes, name: str) -> tuple[int, int, str]:
    from PIL import Image

    try:
        # Of others Pillow would have some drawn by other programs.
        with Image.open(io.BytesIO(content), formats=("PNG", "GIF")) as picture:
            picture.load()
            if getattr(picture, "n_frames", 1) == 1:
                return picture.width, picture.height, ""
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "PNG", optimize=True)
            return picture.width, picture.height, _uri(buffer.getvalue(), ".png")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} is damaged: {error}") from error


def _uri(content: bytes, suffix: str) -> str:
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(content).decode('ascii')}"
