"""The pretrained networks of images: loaded from what a reference names, and built again for the
trained weights of a run."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from volano.data.sources.fitting import CUT, PAD, SQUEEZE
from volano.errors import UsageError, needs_package
from volano.pretrained.fine_tuned import ImageTrunk
from volano.pretrained.heads import FoundHead, find_head, without_head
from volano.pretrained.network_references import NetworkReference
from volano.pretrained.preprocessing import Preprocessing
from volano.pretrained.read_weights import digest_of_weights, load_fitting, read_weights
from volano.pretrained.transformers_library import (
    ENCODER_AUTO,
    IMAGES_AUTO,
    PIXELS,
    build_network,
    classes_of,
    config_of,
    has_pooler,
    load_network,
    offline,
    read_json_of,
    without_pooler,
)
from volano.record.files import nearest
from volano.running.references import load_reference

# By their names in timm.
_FITS_OF_TIMM = {"center": CUT, "squash": SQUEEZE, "border": PAD}
_LONGEST_REASON = 160  # characters of another library's error


@dataclass(frozen=True, kw_only=True)
class ImageNetwork:
    """A pretrained network of images without its head.

    Attributes:
        reference: what names it.
        skeleton: JSON by which :func:`build_trunk` makes it again, for other weights.
        preprocessing: of its pictures.
        digest: of its weights.
        num_features: what it gives of each picture.
        classes: names of the classes of its own head, if it states them.
        trunk: bytes uint8 [N, channels, size, size] in, features fp32 [N, F] out.
        notices: texts that a person should read.
    """

    reference: str = field(repr=False)
    skeleton: dict[str, Any] = field(repr=False)
    preprocessing: Preprocessing
    digest: str
    num_features: int
    classes: tuple[str, ...] = field(default=(), repr=False)
    trunk: nn.Module = field(repr=False)
    notices: tuple[str, ...] = field(default=(), repr=False)

    def fresh_trunk(self) -> nn.Module:
        """Returns a copy of the trunk with the pretrained weights."""
        return copy.deepcopy(self.trunk)

    def in_words(self) -> str:
        """Returns what it is, in words."""
        return (
            f"{self.reference}: {self.num_features:,} features; pictures are brought to "
            f"{self.preprocessing.in_words()}"
        )


def load_image_network(
    reference: NetworkReference, text: str, *, model: str | None = None
) -> ImageNetwork:
    """Loads the network that a reference names; not that of a run.

    Args:
        text: the reference as a person wrote it.
        model: ``module:function`` of the network to which a file of weights belongs.

    Raises:
        UsageError: it is not there or does not fit.
        MissingExtraError: its library is not installed.
    """
    check_model(reference, text, model)
    kinds = {"transformers": _of_transformers, "timm": _of_timm, "function": _of_function}
    if reference.kind == "weights":
        assert model is not None
        module, skeleton, preprocessing, classes, notices = _of_weights(reference.name, model)
    else:
        module, skeleton, preprocessing, classes, notices = kinds[reference.kind](reference.name)
    return trunk_of(
        module, skeleton, preprocessing, reference=text, classes=classes, notices=notices
    )


def check_model(reference: NetworkReference, text: str, model: str | None) -> None:
    """Raises UsageError unless ``model`` comes with a file of weights, and with nothing else."""
    if (reference.kind == "weights") != (model is not None):
        raise UsageError(
            "A file of weights must come with `model`, the module:function of its network, and "
            "`model` with such a file",
            got=f"`from_` {text}" + ("" if model is None else f" and `model` {model}"),
        )


def trunk_of(
    module: nn.Module,
    skeleton: dict[str, Any],
    preprocessing: Preprocessing,
    *,
    reference: str,
    classes: tuple[str, ...] = (),
    notices: tuple[str, ...] = (),
) -> ImageNetwork:
    """Finds a network's head, takes it off, and describes the rest.

    Raises:
        UsageError: the network cannot be passed pictures of its size.
    """
    head = _passed(module, preprocessing, whose=reference)
    said = _unfrozen(module, reference)
    trunk = ImageTrunk(without_head(module, head.name), preprocessing)
    return ImageNetwork(
        reference=reference,
        skeleton={**skeleton, "head": head.name},
        preprocessing=preprocessing,
        digest=digest_of_weights(trunk),
        num_features=head.num_features,
        classes=classes if len(classes) == head.num_outputs else (),
        trunk=trunk.eval(),
        notices=(*notices, *said),
    )


def _passed(module: nn.Module, preprocessing: Preprocessing, **words: str) -> FoundHead:
    """Passes a network two pictures of its size, and returns its head; see :func:`find_head`."""
    example = torch.zeros(2, preprocessing.channels, preprocessing.size, preprocessing.size)
    # Another picture than black: of equal ones two layers may give the same.
    example += torch.linspace(-1, 1, example.numel()).view_as(example)
    return find_head(module, example, **words)


def _unfrozen(module: nn.Module, reference: str) -> tuple[str, ...]:
    """Lets a network be trained that came wholly frozen, as from a run that trained its head alone;
    of one that came partly frozen a notice is returned."""
    every = list(module.parameters())
    frozen = [parameter for parameter in every if not parameter.requires_grad]
    if len(frozen) == len(every):
        for parameter in filter(torch.is_floating_point, frozen):
            parameter.requires_grad_(True)
    elif frozen:
        num = sum(parameter.numel() for parameter in frozen)
        return (f"{num:,} parameters of {reference} are frozen as it comes, and stay so",)
    return ()


def build_trunk(
    skeleton: Mapping[str, Any],
    preprocessing: Preprocessing,
    builders: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]],
) -> nn.Module:
    """Returns the trunk that a skeleton describes, for weights to be loaded. Code that it names
    must have been checked.

    Args:
        skeleton: see :class:`ImageNetwork`.
        preprocessing: likewise.
        builders: for each kind of skeleton that is an application's own, what builds it.
    """
    kind = skeleton["kind"]
    if kind == "transformers":
        module = build_network(skeleton["config"], skeleton["auto"])
        module = module if skeleton.get("pooler", True) else without_pooler(module)
    elif kind == "timm":
        timm = _timm()
        module = timm.create_model(_known(timm, skeleton["name"]), pretrained=False)
    elif kind == "function":
        module = make_of_function(skeleton["reference"], skeleton["arguments"])[0]
    else:
        module = builders[kind](skeleton)
    return ImageTrunk(without_head(module, skeleton["head"]), preprocessing)


_Loaded = tuple[nn.Module, dict[str, Any], Preprocessing, tuple[str, ...], tuple[str, ...]]


def _of_transformers(name: str) -> _Loaded:
    config = config_of(name)
    is_classifier = any("ForImageClassification" in n for n in config.get("architectures") or ())
    auto = IMAGES_AUTO if is_classifier else ENCODER_AUTO
    # Of CLIP and its like, the part that takes pictures.
    part = None if is_classifier else config.get("vision_config")
    # Features of a pooler that its weights lack, and that is drawn, would say little.
    module = load_network(name, auto, takes=PIXELS, is_pooled=False, config=part)
    config = part or config
    stated, said = read_json_of(name, "preprocessor_config.json"), ()
    stated = stated or read_json_of(name, "processor_config.json").get("image_processor")
    if not stated:
        said = (f"hf:{name} has no preprocessor_config.json: ImageNet's mean and std are taken",)
        preprocessing = _unstated_preprocessing(config, f"hf:{name}")
    else:
        preprocessing = Preprocessing.of_processor(stated, f"hf:{name}")
    skeleton = {"kind": "transformers", "auto": auto, "config": config}
    if not has_pooler(module):
        skeleton["pooler"] = False
    return module, skeleton, preprocessing, classes_of(config), said


def _unstated_preprocessing(config: Mapping[str, Any], whose: str) -> Preprocessing:
    """Returns what suits a configuration of transformers that comes without its processor."""
    size, own = config.get("image_size", 224), Preprocessing.of({}, "ImageNet")
    stated: dict[str, Any] = {"size": size[0] if isinstance(size, list | tuple) else size}
    if config.get("num_channels") == 1:
        stated |= {"mean": [sum(own.mean) / 3], "std": [sum(own.std) / 3], "largest": 255}
    return Preprocessing.of(stated, whose)


def _of_timm(name: str) -> _Loaded:
    timm = _timm()
    _known(timm, name)
    try:
        with offline():
            module = timm.create_model(name, pretrained=True)
    except Exception as error:
        raise UsageError(
            "The weights must be in timm's cache on this machine",
            got=f"{name}: {textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...')}",
            remedy=f"Fetch them with: python -c \"import timm; timm.create_model('{name}', "
            'pretrained=True)"',
        ) from error
    stated = timm.data.resolve_data_config({}, model=module)
    values = {
        "size": stated["input_size"],
        **{key: stated[key] for key in ("mean", "std", "interpolation")},
        "fit": _FITS_OF_TIMM.get(stated.get("crop_mode")),
        "largest": 1,
    }
    return module, {"kind": "timm", "name": name}, Preprocessing.of(values, f"timm:{name}"), (), ()


def _known(timm: Any, name: str) -> str:
    """Returns a name if it is that of a network, with or without the tag of its weights; others may
    lead timm to the net."""
    names = timm.list_models(pretrained=True)
    if name not in {*names, *(tagged.partition(".")[0] for tagged in names)}:
        raise UsageError(
            "timm must have the network with weights",
            got=name,
            remedy=f"Nearest: {', '.join(nearest(name, names)) or 'none'}",
        )
    return name


def _timm() -> Any:
    with needs_package("A network of timm needs timm", "'volano[timm]'"):
        import timm  # pyright: ignore[reportMissingImports]
    return timm


def _of_function(reference: str, **offered: Any) -> _Loaded:
    module, function, arguments = make_of_function(reference, offered)
    stated = getattr(function, "preprocessing", None) or getattr(module, "preprocessing", None)
    said = ()
    if stated is None:
        said = (
            f"{reference} has no `preprocessing`: 224 px and ImageNet's mean and std are taken",
        )
    preprocessing = Preprocessing.of(stated or {}, reference)
    skeleton = {"kind": "function", "reference": reference, "arguments": arguments}
    return module, skeleton, preprocessing, (), said


def _of_weights(file: str, model: str) -> _Loaded:
    weights = read_weights(Path(file))
    # Made for another number of classes first: what differs then is the head, and has the file's.
    loaded = _of_function(model, num_classes=1000)
    own = loaded[0].state_dict()
    rows = {len(w) for n, w in weights.items() if n in own and w.shape != own[n].shape}
    if len(rows) == 1:
        loaded = _of_function(model, num_classes=rows.pop())
    load_fitting(loaded[0], weights, whose=file)
    return loaded


def make_of_function(
    reference: str, offered: Mapping[str, Any]
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Returns the network that ``module:function`` makes, the function, and which of the offered
    arguments it took.

    Raises:
        UsageError: it cannot be imported or called, or makes no module.
    """
    function = load_reference(reference)
    rule = "module:function must name a function that returns an nn.Module"
    if not callable(function):
        raise UsageError(rule, got=f"{reference}: {type(function).__name__}")
    wanted = inspect.signature(function).parameters
    named = {name: value for name, value in offered.items() if name in wanted}
    # torchvision's functions hand on what they do not name.
    hands_on = any(one.kind is one.VAR_KEYWORD for one in wanted.values())
    arguments = dict(offered) if hands_on else named
    try:
        try:
            module = function(**arguments)
        except TypeError:
            if arguments == named:
                raise
            arguments = named
            module = function(**named)
    except Exception as error:
        raise UsageError(
            rule, got=f"{reference}, which raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(rule, got=f"{reference}: a function that returns {type(module).__name__}")
    return module.float(), function, arguments  # weights of half precision are trained in fp32


def resized(network: ImageNetwork, size: int) -> ImageNetwork:
    """Returns the same with pictures of another size, which a person asked for.

    Raises:
        UsageError: the network takes no such pictures.
    """
    preprocessing = dataclasses.replace(network.preprocessing, size=size)
    trunk: Any = copy.deepcopy(network.trunk)
    trunk.size = size
    remedy = f"Leave `image_size` out: its own size is {network.preprocessing.size}"
    _passed(trunk.network, preprocessing, whose=network.reference, remedy=remedy)
    said = (
        f"pictures of {size} px, as asked; the network's own size is {network.preprocessing.size}"
    )
    return dataclasses.replace(
        network, preprocessing=preprocessing, trunk=trunk, notices=(*network.notices, said)
    )
