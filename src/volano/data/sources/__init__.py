"""Where data comes from."""

from volano.data.sources.decoding import ImageFile, PixelFormat, choose_format, decode
from volano.data.sources.image_files import ImageFiles, ImageFilesDataset
from volano.data.sources.image_sets import ImageSets, read_image_sets
from volano.data.sources.images import LabelledImages, decode_all, is_image, leave_in_files, listed
from volano.data.sources.labelled_texts import LabelledTexts, LabelledTextSets, read_labelled_texts, read_texts
from volano.data.sources.split import HOLD_OUT_SHARE, hold_out, hold_out_rows
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
    "LabelledTextSets",
    "LabelledTexts",
    "PixelFormat",
    "TextSource",
    "TextSplit",
    "choose_format",
    "decode",
    "decode_all",
    "decode_text",
    "find_texts",
    "hold_out",
    "hold_out_rows",
    "is_image",
    "leave_in_files",
    "listed",
    "read_image_sets",
    "read_labelled_texts",
    "read_texts",
    "split_texts",
]
