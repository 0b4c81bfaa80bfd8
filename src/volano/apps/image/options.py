"""The image application's options."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import Options, fit, held_out_by, option
from volano.errors import UsageError

SIZES = ("tiny", "thin", "base", "wide")
FLIPS = ("auto", "yes", "no")


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """The options of training a classifier of images."""

    path: str | None = option(
        None,
        "Class folders, IDX files, or a .csv or .parquet table; without it, the embedded sample.",
        is_path=True,
    )
    size: str | None = option(None, "Of the network; chosen by time and data.", choices=SIZES)
    model: str | None = option(None, "MODULE:FUNCTION that makes your own network.")
    image_size: int | None = option(
        None, "Pixels a side to decode files to.", at_least=8, at_most=512, unit="px"
    )
    fit: str = fit()
    image_cache: str | None = option(
        None, "Folder for decoded images that do not fit into memory.", is_path=True
    )
    batch_size: int | None = option(None, "Images a step.", at_least=1)
    flip: str = option(
        "auto", "Mirror images: auto finds out whether classes allow it.", choices=FLIPS
    )
    held_out_by: str = held_out_by()
    in_files: bool | None = option(None, "Whether images stay in their files.", is_resolved=True)
    num_evaluations: int | None = option(
        None, "Evaluations during the run at most.", at_least=1, is_resolved=True
    )
    num_valid: int | None = option(
        None, "Images that an evaluation looks at.", at_least=1, is_resolved=True
    )
    num_test: int | None = option(
        None, "Images that the final test looks at.", at_least=1, is_resolved=True
    )
    views: bool | None = option(
        None, "Whether the final test looks at unsure images again, moved.", is_resolved=True
    )
    black: float | None = option(None, "Value of deep pixels that is 0.", is_resolved=True)
    white: float | None = option(None, "Value of deep pixels that is 255.", is_resolved=True)

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """Returns both, or None if the images hold bytes or have not been looked at."""
        return None if self.black is None or self.white is None else (self.black, self.white)

    def code_named(self) -> tuple[str, ...]:
        """Returns the reference of the person's own network."""
        return () if self.model is None else (self.model,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.size is not None:
            raise UsageError(
                "`size` can only choose among Volano's networks", got="`size` together with `model`"
            )
