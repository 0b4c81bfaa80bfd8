"""The references of pretrained networks: what a person writes behind ``--from``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from volano.errors import UsageError
from volano.record.files import nearest_there
from volano.record.shell import quoted

TRANSFORMERS, TIMM = "hf:", "timm:"
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
_FORMS = "hf:NAME, timm:NAME, module:function, a run's folder or a file of weights"


@dataclass(frozen=True, kw_only=True)
class NetworkReference:
    """The reference of a pretrained network.

    Attributes:
        kind: where it comes from.
        name: its name there, its folder or file, or ``module:function``.
    """

    kind: Literal["transformers", "timm", "function", "run", "weights"]
    name: str

    @classmethod
    def parse(cls, text: str) -> NetworkReference:
        """Finds out what a text names: by its prefix, or by what lies there.

        Raises:
            UsageError: it names nothing, or a study.
        """
        if text.startswith(TRANSFORMERS):
            return cls(kind="transformers", name=text.removeprefix(TRANSFORMERS))
        if text.startswith(TIMM):
            return cls(kind="timm", name=text.removeprefix(TIMM))
        path = Path(text)
        if (path / "study.json").is_file():
            raise UsageError(
                "A trial of a study is trained without naming an application",
                got=f"the study {text} as a pretrained network",
                remedy=f"volano train --from {quoted(text)}",
            )
        if (path / "run.json").is_file():
            return cls(kind="run", name=text)
        if (path / "config.json").is_file():
            return cls(kind="transformers", name=text)
        if path.is_file() and path.suffix in WEIGHTS:
            return cls(kind="weights", name=text)
        if ":" in text and not path.exists():
            return cls(kind="function", name=text)
        raise UsageError(
            f"`from_` must name a pretrained network: {_FORMS}",
            got=f"{text}, which is none of them",
            remedy=nearest_there(path),
        )

    @property
    def code(self) -> tuple[str, ...]:
        """The reference of Python code, if it is one."""
        return (self.name,) if self.kind == "function" else ()


def code_of_reference(text: str | None) -> tuple[str, ...]:
    """Returns the Python code that a reference names, without looking whether it is there."""
    is_code = text is not None and ":" in text and not text.startswith((TRANSFORMERS, TIMM))
    return (text,) if is_code and text is not None and not Path(text).exists() else ()


def absolute_reference(text: str) -> str:
    """Returns a reference whose folder or file, if it names one, is absolute: a run is resumed from
    anywhere."""
    prefix = TRANSFORMERS if text.startswith(TRANSFORMERS) else ""
    path = Path(text.removeprefix(prefix))
    return f"{prefix}{path.absolute()}" if path.exists() else text
