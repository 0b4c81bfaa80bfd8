"""Where data comes from."""

from volano.data.sources.decoding import ImageFile, PixelFormat, choose_format, decode
from volano.data.sources.image_files import ImageFiles, ImageFilesDataset
from volano.data.sources.image_sets import ImageSets, read_image_sets
from volano.data.sources.images import LabelledImages, decode_all, is_image, leave_in_files, listed
from volano.data.sources.split import HOLD_OUT_SHARE, hold_out
from volano.data.sources.text_split import TextSplit, split_texts
from volano.data.sources.texts import Document, TextSource, decode_text, find_texts

__all__ = [
    "HOLD_OUT_SHARE",
    "Document",
    "ImageFile",
    "ImageFiles",
    "ImageFilesDataset",
    "ImageSets",
    "LabelledImages",
    "PixelFormat",
    "TextSource",
    "TextSplit",
    "choose_format",
    "decode",
    "decode_all",
    "decode_text",
    "find_texts",
    "hold_out",
    "is_image",
    "leave_in_files",
    "listed",
    "read_image_sets",
    "split_texts",
]
