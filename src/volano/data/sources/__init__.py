"""The sources of data."""

from volano.data.sources.fitting import CUT, FITS
from volano.data.sources.folders import files_to_predict
from volano.data.sources.image.decoding import (
    BILINEAR,
    ImageFile,
    PixelFormat,
    WantedFormat,
    choose_format,
    decode,
    pixels_of,
)
from volano.data.sources.image.image_files import ImageFiles, ImageFilesDataset
from volano.data.sources.image.image_names import is_image, listed
from volano.data.sources.image.image_sets import ImageSets, read_image_sets
from volano.data.sources.image.images import LabelledImages, decode_all, leave_in_files, picked
from volano.data.sources.split import BY_CONTENT, BY_PLACE, hold_out, hold_out_rows
from volano.data.sources.split_record import (
    SPLITS_NAME,
    TEST,
    TRAIN,
    VALID,
    SplitMember,
    SplitRecord,
    content_key,
    contradictions,
    copies_of_training,
    file_key,
    member_rows,
)
from volano.data.sources.targets import CLASSES, LABELS, NUMBERS, TargetFormat, check_trained
from volano.data.sources.text.labelled_texts import (
    LabelledTexts,
    LabelledTextSets,
    read_labelled_texts,
    read_texts,
)
from volano.data.sources.text.text_split import TextSplit, split_texts
from volano.data.sources.text.texts import TextSource, decode_text, find_texts
from volano.data.sources.video.bouncing import bouncing_digits
from volano.data.sources.video.clip_files import (
    PICTURE_SUFFIXES,
    decode_clip,
    is_clip,
    listed_clips,
)
from volano.data.sources.video.clip_format import choose_clip_format
from volano.data.sources.video.clip_pixels import ClipFormat
from volano.data.sources.video.clips import (
    Clips,
    ClipSets,
    WantedClips,
    read_clip_folder,
    read_clips_like,
    spread_frames,
)

__all__ = [
    "BILINEAR",
    "BY_CONTENT",
    "BY_PLACE",
    "CLASSES",
    "CUT",
    "FITS",
    "LABELS",
    "NUMBERS",
    "PICTURE_SUFFIXES",
    "SPLITS_NAME",
    "TEST",
    "TRAIN",
    "VALID",
    "ClipFormat",
    "ClipSets",
    "Clips",
    "ImageFile",
    "ImageFiles",
    "ImageFilesDataset",
    "ImageSets",
    "LabelledImages",
    "LabelledTextSets",
    "LabelledTexts",
    "PixelFormat",
    "SplitMember",
    "SplitRecord",
    "TargetFormat",
    "TextSource",
    "TextSplit",
    "WantedClips",
    "WantedFormat",
    "bouncing_digits",
    "check_trained",
    "choose_clip_format",
    "choose_format",
    "content_key",
    "contradictions",
    "copies_of_training",
    "decode",
    "decode_all",
    "decode_clip",
    "decode_text",
    "file_key",
    "files_to_predict",
    "find_texts",
    "hold_out",
    "hold_out_rows",
    "is_clip",
    "is_image",
    "leave_in_files",
    "listed",
    "listed_clips",
    "member_rows",
    "picked",
    "pixels_of",
    "read_clip_folder",
    "read_clips_like",
    "read_image_sets",
    "read_labelled_texts",
    "read_texts",
    "split_texts",
    "spread_frames",
]
