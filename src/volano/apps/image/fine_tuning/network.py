"""The pretrained network of an image run: found by its reference, and built again from the run's
folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from volano.apps.image.model_spec import ClassifierSpec, make_classifier, own_model_of
from volano.apps.image.options import ImageOptions
from volano.errors import UsageError
from volano.pretrained.fine_tuned import FineTuned, StandardizedLinear
from volano.pretrained.image_networks import (
    ImageNetwork,
    build_trunk,
    check_model,
    load_image_network,
    make_of_function,
    resized,
    trunk_of,
)
from volano.pretrained.network_references import NetworkReference
from volano.pretrained.preprocessing import Preprocessing
from volano.record.json_values import mapping
from volano.running.checks import check_ended
from volano.running.train import kind_of
from volano.running.trust import check_trusted
from volano.training import WEIGHTS, RunFolder, build_and_load, load_weights


def network_of(options: ImageOptions) -> ImageNetwork | None:
    """Loads the pretrained network that options name; None if they name none.

    Raises:
        UsageError: it is not there or does not fit.
    """
    if options.from_ is None:
        return None
    reference = NetworkReference.parse(options.from_)
    if reference.kind == "run":
        check_model(reference, options.from_, options.model)
        network = _of_run(RunFolder.open(reference.name), options.from_)
    else:
        network = load_image_network(reference, options.from_, model=options.model)
    size = options.image_size
    return network if size in (None, network.preprocessing.size) else resized(network, size)


def described(network: ImageNetwork, tune: str) -> dict[str, Any]:
    """Returns what ``image.json`` keeps of a network: enough to build and feed it again."""
    return {
        "reference": network.reference,
        "tune": tune,
        "skeleton": network.skeleton,
        "preprocessing": network.preprocessing.to_json(),
        "num_features": network.num_features,
        "weights_digest": network.digest,
    }


def input_of(network: ImageNetwork) -> dict[str, Any]:
    """Returns how files are decoded for a network, as fields of ``WantedFormat``."""
    own = network.preprocessing
    return {"own_size": own.size, "own_fit": own.fit, "interpolation": own.interpolation}


def scale_of(network: ImageNetwork) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation of bytes as the network was trained on them."""
    return network.preprocessing.mean, network.preprocessing.std


def fresh_classifier(spec: ClassifierSpec, folder: Path) -> nn.Module:
    """Returns a run's classifier, for its weights to be loaded.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
    """
    if spec.pretrained is None:
        return make_classifier(spec, own_model_of(spec.model_reference, folder))
    about = spec.pretrained
    head = StandardizedLinear(about["num_features"], len(spec.classes))
    return FineTuned(trunk_again(about, folder), head, about["tune"])


def trunk_again(about: Mapping[str, Any], folder: Path) -> nn.Module:
    """Returns the trunk that :func:`described` a run's network, for weights to be loaded.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
    """
    for reference in codes_of(about["skeleton"]):
        check_trusted(reference, folder)
    preprocessing = Preprocessing.from_json(about["preprocessing"])
    return build_trunk(about["skeleton"], preprocessing, _BUILDERS)


def load_classifier(spec: ClassifierSpec, folder: Path) -> nn.Module:
    """Returns a run's classifier with its weights.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
        CheckpointError: the weights are missing, damaged or another network's.
    """
    codes = [] if spec.model_reference is None else [spec.model_reference]
    if spec.pretrained is not None:
        codes = codes_of(spec.pretrained["skeleton"])
    return load_trained(lambda: fresh_classifier(spec, folder), folder, codes)


def load_trained(make: Callable[[], nn.Module], folder: Path, codes: Sequence[Any]) -> nn.Module:
    """Returns the network that a run's folder describes, with its weights.

    Args:
        make: makes the network.
        folder: of the run.
        codes: the references of code that makes it.

    Raises:
        UsageError: the run names code that the person has neither named nor trusts.
        CheckpointError: the weights are missing, damaged or another network's.
    """
    if not codes:
        return build_and_load(make, folder / WEIGHTS)
    module = make()  # trusted code, which may need real tensors
    load_weights(module, folder / WEIGHTS)
    return module


def _of_run(folder: RunFolder, text: str) -> ImageNetwork:
    """Returns the network of another run, with its trained weights and its preprocessing."""
    if not (folder.path / "image.json").is_file():
        raise UsageError(
            "A run to begin with must be one of the image application",
            got=f"{text}, of {kind_of(folder.path)}",
        )
    check_ended(folder)
    spec = ClassifierSpec.of_run(folder)
    module = load_classifier(spec, folder.path)
    if spec.pretrained is not None:
        skeleton, stated = spec.pretrained["skeleton"], spec.pretrained["preprocessing"]
        assert isinstance(module, FineTuned)
        whole = getattr(module.trunk, "network", module.trunk)
        preprocessing = dataclasses.replace(Preprocessing.from_json(stated), fit=spec.fit)
        found = trunk_of(whole, skeleton, preprocessing, reference=text, classes=spec.classes)
        return _with_head_of(found, skeleton["head"])
    # Its own network widens and scales bytes itself.
    as_it_is = Preprocessing(
        size=spec.image_size, mean=(0.0,) * spec.channels, std=(1.0,) * spec.channels,
        fit=spec.fit,
    )  # fmt: skip
    skeleton = {"kind": "volano", "spec": spec.to_json()}
    return trunk_of(module, skeleton, as_it_is, reference=text, classes=spec.classes)


def _with_head_of(network: ImageNetwork, name: str | None) -> ImageNetwork:
    # Its head is off already, so that none was found; where it was is what a skeleton needs.
    network.skeleton["head"] = name
    return network


def _build_own(skeleton: Mapping[str, Any]) -> nn.Module:
    spec = ClassifierSpec.from_json(skeleton["spec"])
    if spec.model_reference is None:
        return make_classifier(spec)
    offered = {
        "num_classes": len(spec.classes),
        "in_channels": spec.channels,
        "image_size": spec.image_size,
    }
    reference = spec.model_reference
    return make_classifier(spec, lambda **_: make_of_function(reference, offered)[0])


_BUILDERS = {"volano": _build_own}


def codes_of(skeleton: Mapping[str, Any]) -> list[Any]:
    """Returns every reference of code in a skeleton, whichever of them is used."""
    found = (skeleton.get("reference"), mapping(skeleton.get("spec")).get("model_reference"))
    return [one for one in found if one is not None]
