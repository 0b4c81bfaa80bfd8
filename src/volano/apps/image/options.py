"""The image application's options."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import Options, option
from volano.apps.shared_options import (
    columns_of,
    fit,
    from_option,
    held_out_by,
    num_evaluations,
    settle_from,
    target,
    target_columns,
)
from volano.errors import UsageError
from volano.pretrained.network_references import ALL, HEAD, code_of_reference

SIZES = ("tiny", "thin", "base", "wide")
TUNES = (HEAD, ALL)
FLIPS = ("auto", "yes", "no")


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """The options of training a classifier of images."""

    path: str | None = option(
        None,
        "Class folders, IDX files, or a .csv or .parquet table; without it, the embedded sample.",
        is_path=True,
    )
    target: str | None = target()
    target_columns: str | None = target_columns()
    size: str | None = option(
        None, "Size of the network; default: chosen by time and data.", choices=SIZES
    )
    model: str | None = option(None, "MODULE:FUNCTION that makes your own network.")
    from_: str | None = from_option("hf:NAME, timm:NAME, MODULE:FUNCTION, a run or weights")
    tune: str | None = option(
        None,
        "Part of a pretrained network to train; default: chosen by examples and time.",
        choices=TUNES,
    )
    image_size: int | None = option(
        None,
        "Size that files are decoded to, in pixels a side.",
        at_least=8,
        at_most=512,
        unit="px",
    )
    fit: str | None = fit()
    image_cache: str | None = option(
        None, "Folder for decoded images that do not fit into memory.", is_path=True
    )
    batch_size: int | None = option(None, "Images a step.", at_least=1)
    flip: str = option(
        "auto", "Mirror images: auto finds out whether classes allow it.", choices=FLIPS
    )
    held_out_by: str = held_out_by()
    in_files: bool | None = option(None, "Whether images stay in their files.", is_resolved=True)
    num_evaluations: int | None = num_evaluations()
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
        """Returns the references of the person's own networks."""
        own = () if self.model is None else (self.model,)
        return (*own, *code_of_reference(self.from_))

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_from(self, "size")
        columns_of(self.target_columns)
        if self.model is not None and self.size is not None:
            raise UsageError(
                "`size` can only choose among Volano's networks", got="`size` together with `model`"
            )
