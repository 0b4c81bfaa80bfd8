"""The options of classifying texts."""

from __future__ import annotations

from dataclasses import dataclass

from volano.apps.options import Options, held_out_by, option
from volano.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(Options):
    """The options of training a classifier of texts: where they lie, how long, and the seed."""

    path: str | None = option(None, "Labelled texts: class folders or a table.", is_path=True)
    held_out_by: str = held_out_by()
    epochs: float | None = option(
        None, "Not for this application.", above=0, is_resolved=True, is_kept=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise UsageError("`classify` needs a path of labelled texts", got="none")
