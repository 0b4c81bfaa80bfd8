"""Where data comes from."""

from volano.data.sources.bouncing import bouncing_digits
from volano.data.sources.clip_files import PICTURE_SUFFIXES, ClipFormat, decode_clip, is_clip
from volano.data.sources.clips import Clips, ClipSets, choose_clip_format, read_clip_folder, read_clips_like
from volano.data.sources.image_sets import ImageSets, read_image_sets
from volano.data.sources.images import (
    ImageFile,
    LabelledImages,
    PixelFormat,
    choose_format,
    decode,
    decode_all,
    is_image,
    listed,
)
from volano.data.sources.split import HOLD_OUT_SHARE, hold_out

__all__ = [
    "HOLD_OUT_SHARE",
    "PICTURE_SUFFIXES",
    "ClipFormat",
    "ClipSets",
    "Clips",
    "ImageFile",
    "ImageSets",
    "LabelledImages",
    "PixelFormat",
    "bouncing_digits",
    "choose_clip_format",
    "choose_format",
    "decode",
    "decode_all",
    "decode_clip",
    "hold_out",
    "is_clip",
    "is_image",
    "listed",
    "read_clip_folder",
    "read_clips_like",
    "read_image_sets",
]
