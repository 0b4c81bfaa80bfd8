"""The description of a trained classifier, from which its network is built and fed again; kept in
``image.json``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from volano.apps.image.network import build_network
from volano.apps.image.scores import Views
from volano.apps.model_spec import ModelSpec
from volano.apps.targets.find_target import target_of_run
from volano.apps.targets.target import Target
from volano.data.sources import BILINEAR, CUT, PixelFormat
from volano.errors import TaskError, UsageError
from volano.running.references import load_reference
from volano.running.trust import check_trusted


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec(ModelSpec):
    """A classifier of images, without its weights.

    Attributes:
        classes: the class names, in the order of the logits; names of labels or numbers.
        channels: 1 or 3.
        image_size: height and width in pixels.
        mean: the mean of each channel's bytes over the training set.
        std: likewise.
        size: ``"thin"``, ``"base"`` or ``"wide"``; None with a model of one's own.
        model_reference: ``module:function`` of a model of one's own, or None.
        flip: whether mirrored images keep their class.
        translate: pixels of the shifts in training and in test-time augmentation.
        pixel_range, fit: see ``PixelFormat``.
        target: what ``Target.to_json`` says of labels or numbers; None of classes.
        pretrained: what ``fine_tuning/network.py`` says of a pretrained network, or None.
    """

    file = "image.json"
    what = "a classifier"
    # Larger ones than any options ask for: IDX files have their own sizes.
    bounds = {"channels": (1, 4), "image_size": (1, 8192), "translate": (0, 8192)}  # noqa: RUF012

    classes: tuple[str, ...]
    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: str | None
    model_reference: str | None
    flip: bool
    translate: int
    # No part of the model, and so of no description of a task: the images themselves are.
    pixel_range: tuple[float, float] | None = field(default=None, repr=False)
    fit: str = field(default=CUT, repr=False)
    # The objective says it.
    target: dict[str, Any] | None = field(default=None, repr=False)
    # Described by its weights' digest instead.
    pretrained: dict[str, Any] | None = field(default=None, repr=False)

    @functools.cached_property
    def answers(self) -> Target:
        """The target: what the network gives."""
        return target_of_run(self.classes, self.target)

    def views(self, *, further: bool = True) -> Views:
        """Returns the views of a final test; without ``further`` ones, each image alone."""
        return Views(
            flip=self.flip and further,
            translate=self.translate if further else 0,
            unsure=self.answers.is_unsure,
        )

    @property
    def pixel_format(self) -> PixelFormat:
        """The format to which files are decoded."""
        own = {} if self.pretrained is None else self.pretrained["preprocessing"]
        return PixelFormat(
            channels=self.channels,
            size=self.image_size,
            pixel_range=self.pixel_range,
            fit=self.fit,
            interpolation=own.get("interpolation", BILINEAR),
        )

    @classmethod
    def num_channels(cls, fields: Mapping[str, Any]) -> int | None:
        """Implements :meth:`ModelSpec.num_channels`: a pretrained network's own channels count,
        whatever the images have."""
        return fields.get("channels") if fields.get("pretrained") is None else 3

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        if fields.get("pixel_range") is not None:
            low, high = map(float, fields["pixel_range"])
            fields["pixel_range"] = (low, high)
        found = super().parsed(fields)
        assert found.answers
        return found


def make_classifier(
    spec: ClassifierSpec, own_model: Callable[..., Any] | None = None, patches: Tensor | None = None
) -> nn.Module:
    """The spec's network: bytes uint8 [N, channels, size, size] in, logits [N, classes] out.

    Args:
        spec: the description of the classifier.
        own_model: the function that ``spec.model_reference`` names.
        patches: images uint8 [n, channels, size, size] whose statistics whiten the stem of a fresh
            network; None when trained weights are loaded afterwards.

    Raises:
        TaskError: ``own_model`` does not make a module.
    """
    if own_model is None:
        assert spec.size is not None
        return build_network(
            spec.size,
            spec.channels,
            spec.image_size,
            len(spec.classes),
            spec.mean,
            spec.std,
            whitening_patches=patches,
        )
    offered = {
        "num_classes": len(spec.classes),
        "in_channels": spec.channels,
        "image_size": spec.image_size,
    }
    wanted = inspect.signature(own_model).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in wanted.values())
    module = own_model(
        **{name: value for name, value in offered.items() if takes_all or name in wanted}
    )
    if not isinstance(module, nn.Module):
        raise TaskError(
            "`model` must name a function that returns an nn.Module; it may take "
            f"{', '.join(offered)}",
            got=type(module).__name__,
        )
    return Normalized(module, spec.mean, spec.std)


def check_classifier(spec: ClassifierSpec, own_model: Callable[..., Any] | None) -> None:
    """Tries a network of a person's own on two blank images.

    Raises:
        TaskError: it fails, or gives another shape than logits [2, classes].
    """
    if own_model is None:
        return
    wanted = (2, len(spec.classes))
    images = torch.zeros(2, spec.channels, spec.image_size, spec.image_size, dtype=torch.uint8)
    rule = f"`model`'s network maps images fp32 {[2, *images.shape[1:]]} to logits {list(wanted)}"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            logits = make_classifier(spec, own_model).eval()(images)
        except TaskError:
            raise
        except Exception as error:
            raise TaskError(
                rule, got=f"{type(error).__name__}: {error}", remedy="`debug` shows where"
            ) from error
    if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TaskError(
            rule, got=got, remedy="The function may take num_classes, in_channels and image_size"
        )


class Normalized(nn.Module):
    """A model of one's own behind the widening of bytes: it sees fp32 of mean 0 and deviation 1 in
    each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, module: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        """Applies the module to bytes uint8 [N, channels, size, size]."""
        return self.module((images.float() - self.mean) / self.std)


def own_model_of(reference: str | None, folder: Path | None = None) -> Callable[..., Any] | None:
    """Returns what ``module:function`` names, or None.

    Args:
        folder: the run's folder that names it; None if the person does.

    Raises:
        UsageError: it cannot be imported or called, or the person has neither named it nor trusts
            the folder.
    """
    if reference is None:
        return None
    if folder is not None:
        check_trusted(reference, folder)
    function = load_reference(reference)
    if not callable(function):
        raise UsageError(
            "`model` must name a function that makes a model",
            got=f"{reference}: {type(function).__name__}",
        )
    return function
