"""The options of classifying clips."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import Options, option
from volano.apps.shared_options import fit, from_option, held_out_by, num_evaluations, settle_from
from volano.apps.video.options import FLIPS, LEAST_FPS, MOST_FPS
from volano.errors import UsageError
from volano.pretrained.references import code_of_reference


@dataclass(frozen=True, kw_only=True)
class ClipClassifyOptions(Options):
    """The options of training a classifier of clips."""

    path: str | None = option(
        None, "Clips in class folders, or a table of files and labels.", is_path=True
    )
    from_: str | None = from_option("an image network; its frozen features are averaged over time")
    num_frames: int | None = option(
        None,
        "Frames of a clip that are looked at; 8.",
        at_least=1,
        at_most=64,
        unit="frames",
        flag="--frames",
    )
    image_size: int | None = option(
        None, "Pixels a side to decode to.", at_least=8, at_most=256, multiple_of=8, unit="px"
    )
    fit: str = fit()
    fps: float | None = option(
        None,
        "Frames a second to decode to.",
        at_least=LEAST_FPS,
        at_most=MOST_FPS,
        unit="frames a second",
    )
    batch_size: int | None = option(None, "Clips a step.", at_least=1)
    flip: str = option("auto", "Mirror clips: auto is no.", choices=FLIPS)
    held_out_by: str = held_out_by()
    num_evaluations: int | None = num_evaluations()

    def code_named(self) -> tuple[str, ...]:
        """Returns the reference of the person's own network."""
        return code_of_reference(self.from_)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise UsageError("`classify` needs a path of clips in class folders", got="none")
        settle_from(self)
