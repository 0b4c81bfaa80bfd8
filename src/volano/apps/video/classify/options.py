"""The options of classifying clips."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import option
from volano.apps.shared_options import from_option, settle_from
from volano.apps.video.options import ClipOptions, frames
from volano.errors import UsageError
from volano.pretrained.network_references import code_of_reference


@dataclass(frozen=True, kw_only=True)
class ClipClassifyOptions(ClipOptions):
    """The options of training a classifier of clips."""

    path: str | None = option(
        None, "Clips in class folders, or a table of files and labels.", is_path=True
    )
    from_: str | None = from_option("an image network; its frozen features are averaged over time")
    num_frames: int | None = frames(8, at_least=1)

    def code_named(self) -> tuple[str, ...]:
        """Returns the reference of the person's own network."""
        return code_of_reference(self.from_)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise UsageError("`classify` needs a path of clips in class folders", got="none")
        settle_from(self)
