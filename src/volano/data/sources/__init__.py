"""Where data comes from."""

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
    "ImageFile",
    "ImageSets",
    "LabelledImages",
    "PixelFormat",
    "choose_format",
    "decode",
    "decode_all",
    "hold_out",
    "is_image",
    "listed",
    "read_image_sets",
]
