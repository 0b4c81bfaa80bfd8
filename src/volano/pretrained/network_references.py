"""The references of pretrained networks: what a person writes behind ``--from``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from volano.errors import UsageError
from volano.record.files import nearest_there
from volano.record.shell import quoted

# The parts of a network that a person may have trained: its head, all layers, low-rank adapters.
HEAD, ALL, LORA = "head", "all", "lora"
TRANSFORMERS, TIMM = "hf:", "timm:"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
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
            name = text.removeprefix(TRANSFORMERS)
            name = str(_expanded(name)) if name.startswith("~") else name
            return cls(kind="transformers", name=name)
        if text.startswith(TIMM):
            return cls(kind="timm", name=text.removeprefix(TIMM))
        path = _expanded(text)
        if (path / "study.json").is_file():
            raise UsageError(
                "A study to train a trial of must be named without an application",
                got=f"the study {text} as a pretrained network",
                remedy=f"volano train --from {quoted(text)}",
            )
        if (path / "run.json").is_file():
            return cls(kind="run", name=str(path))
        if (path / "config.json").is_file():
            return cls(kind="transformers", name=str(path))
        if path.is_file() and path.suffix in WEIGHT_SUFFIXES:
            return cls(kind="weights", name=str(path))
        if ":" in text and "://" not in text and not path.exists():
            return cls(kind="function", name=text)
        raise UsageError(
            f"`from_` must name a pretrained network: {_FORMS}",
            got=f"{text}, which is {_kind_of(path)}",
            remedy=_meant(text, path),
        )

    @property
    def code(self) -> tuple[str, ...]:
        """The reference of Python code, if it is one."""
        return (self.name,) if self.kind == "function" else ()


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # nobody's home
        return Path(text)


def _kind_of(path: Path) -> str:
    """Returns in words what lies at a path that names no network."""
    if path.is_dir():
        return "a folder without config.json (of transformers) and run.json (of a run)"
    return "a file of another kind" if path.is_file() else "none of them"


def _meant(text: str, path: Path) -> str | None:
    """Returns what a person may have meant, in words."""
    if path.is_dir():
        found = sorted(file.name for file in path.iterdir() if file.suffix in WEIGHT_SUFFIXES)
        return f"Name the weights in it, {found[0]}, with `model`" if found else None
    if path.is_file():
        return f"Weights are in files {', '.join(WEIGHT_SUFFIXES)}"
    if "://" in text:
        name = "/".join(text.rstrip("/").split("/")[-2:])
        return f"A network of Hugging Face's hub is named {TRANSFORMERS}{name}"
    near = nearest_there(path)
    if near is None and text.count("/") <= 1 and not text.startswith((".", "/", "~")):
        return f"Is it of transformers or timm? {TRANSFORMERS}{text} or {TIMM}{text}"
    return near


def code_of_reference(text: str | None) -> tuple[str, ...]:
    """Returns the Python code that a reference names, without looking whether it is there."""
    if text is None or ":" not in text or "://" in text or text.startswith((TRANSFORMERS, TIMM)):
        return ()
    return () if _expanded(text).exists() else (text,)


def absolute_reference(text: str) -> str:
    """Returns a reference whose folder or file, if it names one, is absolute: a run is resumed from
    anywhere."""
    prefix = TRANSFORMERS if text.startswith(TRANSFORMERS) else ""
    path = _expanded(text.removeprefix(prefix))
    return f"{prefix}{path.absolute()}" if path.exists() else text
