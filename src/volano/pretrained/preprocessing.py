"""The input that a network of images was trained on: size, scale and interpolation."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from volano.data.sources.fitting import CUT, FITS, SQUEEZE
from volano.errors import UsageError

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
_KEYS = ("size", "mean", "std", "interpolation", "fit", "largest")
# Numbers of Pillow, as a configuration of transformers holds them.
_OF_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of a network's pictures.

    Attributes:
        size: height and width in pixels.
        mean: mean of each channel, of bytes from 0 to 255.
        std: deviation, likewise.
        interpolation: method by which pictures are brought to the size.
        fit: how pictures that are no squares become some; None if nobody states it.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    fit: str | None = None

    @property
    def channels(self) -> int:
        """The channels that the network takes."""
        return len(self.mean)

    @classmethod
    def of(cls, values: Any, whose: str) -> Preprocessing:
        """Returns the preprocessing that a mapping states.

        Args:
            values: ``size``, ``mean``, ``std``, ``interpolation`` and ``fit``; ``largest`` is 1 or
                255, the value of a white pixel to which mean and std belong. Without it they are
                of bytes if one of them is above 1.
            whose: what states it, in words.

        Raises:
            UsageError: a name is unknown, or a value cannot be.
        """
        _check_keys(values, whose)
        mean, std = (_numbers(values.get(name), default) for name, default in _IMAGENET.items())
        largest = values.get("largest", 255 if max(*mean, *std) > 1 else 1)
        size = values.get("size", 224)
        size = size[-1] if isinstance(size, Sequence) and size else size
        interpolation = str(values.get("interpolation", "bilinear")).lower().rpartition(".")[2]
        is_sound = len(mean) == len(std) in (1, 3) and min(std) > 0 and largest in (1, 255)
        if not (is_sound and isinstance(size, int) and size >= 8):
            raise UsageError(
                "`preprocessing` must have a size in pixels from 8 on, and mean and std (above 0) "
                "of 1 or 3 channels",
                got=f"{dict(values)} of {whose}",
            )
        fit = values.get("fit")
        known = {"interpolation": (interpolation, INTERPOLATIONS), "fit": (fit or CUT, FITS)}
        for name, (value, choices) in known.items():
            if value not in choices:
                raise UsageError(
                    f"The {name} must be one of {', '.join(choices)}", got=f"{value!r} of {whose}"
                )
        scale = 255 / largest
        return cls(
            size=size,
            mean=tuple(round(scale * value, 4) for value in mean),
            std=tuple(round(scale * value, 4) for value in std),
            interpolation=interpolation,
            fit=fit,
        )

    @classmethod
    def of_processor(cls, values: Mapping[str, Any], whose: str) -> Preprocessing:
        """Returns what a ``preprocessor_config.json`` of transformers states."""
        size = values.get("crop_size") if values.get("do_center_crop") else None
        size = size or values.get("size") or 224
        if isinstance(size, Mapping):
            size = size.get("height") or size.get("shortest_edge") or 224
        is_scaled, is_moved = values.get("do_rescale", True), values.get("do_normalize", True)
        factor = 1.0 / (values.get("rescale_factor") or 1 / 255) if is_scaled else 1.0
        mean = values.get("image_mean") if is_moved else [0.0] * 3
        std = values.get("image_std") if is_moved else [1.0] * 3
        return cls.of(
            {
                "size": int(size) if isinstance(size, float) else size,
                "mean": [factor * value for value in _numbers(mean, _IMAGENET["mean"])],
                "std": [factor * value for value in _numbers(std, _IMAGENET["std"])],
                "interpolation": _OF_PILLOW.get(values.get("resample", 2), "bilinear"),
                "fit": _fit_of_processor(values),
                "largest": 255,
            },
            whose,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_json`."""
        return cls(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})

    def to_json(self) -> dict[str, Any]:
        """Returns all fields."""
        return asdict(self)

    def in_words(self) -> str:
        """Returns it in a few words."""
        mean, std = (" ".join(f"{v:.4g}" for v in values) for values in (self.mean, self.std))
        fitted = "" if self.fit in (None, CUT) else f"fit={self.fit}, "
        return f"{self.size} px, {self.interpolation}, {fitted}mean {mean} and std {std} of bytes"


# The means and deviations of ImageNet, for networks that state none (torchvision, timm).
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _fit_of_processor(values: Mapping[str, Any]) -> str | None:
    """Returns how a processor of transformers makes squares: it cuts them out, or brings pictures
    to a height and a width; None if it does not say."""
    size = values.get("size")
    if values.get("do_center_crop") or values.get("crop_pct"):
        return CUT
    if size is None:
        return None
    return SQUEEZE if not isinstance(size, Mapping) or "height" in size else CUT


def _check_keys(values: Any, whose: str) -> None:
    """Raises UsageError unless ``preprocessing`` is a mapping of what it may hold."""
    if not isinstance(values, Mapping):
        raise UsageError(
            f"`preprocessing` must be a mapping of {', '.join(_KEYS)}",
            got=f"{type(values).__name__} of {whose}",
        )
    for name in values:
        if name not in _KEYS:
            near = difflib.get_close_matches(str(name), _KEYS, n=1) or _KEYS
            raise UsageError(
                f"`preprocessing` must have {', '.join(_KEYS)}",
                got=f"{name!r} of {whose}",
                remedy=f"Did you mean {', '.join(near)}",
            )


def _numbers(value: Any, default: tuple[float, ...]) -> tuple[float, ...]:
    try:
        found = default if value is None else tuple(float(number) for number in value)
    except (TypeError, ValueError):
        found = ()
    return found or (0.0,)
