"""A pretrained trunk with a head of one's own, and the rates with which its layers are trained."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from volano.pretrained.heads import features_in
from volano.pretrained.linear_probe import LinearProbe
from volano.pretrained.network_references import HEAD
from volano.pretrained.preprocessing import Preprocessing

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Depths at which the trunk's rates differ.
_NUM_DEPTHS = 12


class ImageTrunk(nn.Module):
    """A network behind its own preprocessing: bytes uint8 [N, channels, height, width] in, features
    fp32 [N, F] out.

    Pictures of another size are brought to the network's, grey ones to its colours and coloured
    ones to its grey.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size, self.channels = preprocessing.size, preprocessing.channels
        is_smooth = preprocessing.interpolation in ("bicubic", "lanczos")
        self.interpolation = "bicubic" if is_smooth else "bilinear"
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std)
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        if pixels.shape[-1] != self.size or pixels.shape[-2] != self.size:
            pixels = F.interpolate(
                pixels, size=(self.size, self.size), mode=self.interpolation, antialias=True
            )
        if pixels.shape[1] != self.channels:
            pixels = pixels.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        return features_in(self.network((pixels - self.mean) / self.std)).float()


class StandardizedLinear(nn.Module):
    """A linear head of features that are brought to mean 0 and deviation 1 as they were over the
    training examples.

    Args:
        num_features: what goes in.
        num_classes: what comes out.
        probe: where it begins; None begins at zero, for trained weights to be loaded.
    """

    center: Tensor
    scale: Tensor

    def __init__(
        self, num_features: int, num_classes: int, probe: LinearProbe | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.linear = nn.Linear(num_features, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if probe is not None:
            with torch.no_grad():
                self.center.copy_(probe.center)
                self.scale.copy_(probe.scale)
                self.linear.weight.copy_(probe.weight)
                self.linear.bias.copy_(probe.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features [N, F] to logits [N, classes]."""
        return self.linear((features - self.center) * self.scale)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Returns the same as one linear layer."""
        weight = self.linear.weight * self.scale
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.copy_(weight)
        layer.bias.copy_(self.linear.bias - weight @ self.center)
        return layer


class FineTuned(nn.Module):
    """A trunk and a head: logits fp32 [N, classes] of whatever the trunk takes.

    With ``tune="head"`` the trunk is frozen: no parameter of it requires a gradient, and it stays
    in evaluation mode. With ``"all"`` its BatchNorms stay in evaluation mode: statistics of a few
    examples would spoil those that it was trained with.
    """

    def __init__(self, trunk: nn.Module, head: StandardizedLinear, tune: str) -> None:
        super().__init__()
        self.trunk, self.head, self.tune = trunk, head, tune
        if tune == HEAD:
            trunk.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FineTuned:
        """Sets the mode of all that is trained."""
        super().train(mode)
        if self.tune == HEAD:
            self.trunk.eval()
        for module in self.trunk.modules():
            if isinstance(module, _BATCH_NORMS):
                module.eval()
        return self

    def forward(self, inputs: Any, more: Any = None) -> Tensor:
        """Runs the forward pass of what the trunk takes, one input or two."""
        # By name and not as ``*inputs``, which torch.export would take for one tuple.
        features = self.trunk(inputs) if more is None else self.trunk(inputs, more)
        return self.head(features)


def groups_by_depth(
    model: nn.Module, *, trunk_lr: float, head_lr: float, span: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Returns parameter groups at discriminative rates (Howard & Ruder 2018): the trunk's last
    layers have ``trunk_lr``, its first ones ``trunk_lr / span``, those between them lie between in
    equal ratios. What is no matrix or kernel is not decayed."""
    assert isinstance(model, FineTuned)
    layers = [
        [p for p in module.parameters(recurse=False) if p.requires_grad]
        for module in model.trunk.modules()
    ]
    layers = [layer for layer in layers if layer]
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for place, layer in enumerate(layers):
        depth = _NUM_DEPTHS * place // len(layers)
        for parameter in layer:
            if parameter not in seen:  # a tied one belongs where it comes first
                found.setdefault((depth, parameter.ndim > 1), []).append(parameter)
                seen.add(parameter)
    groups = [
        {
            "params": parameters,
            "lr": trunk_lr * math.exp(math.log(span) * (depth / (_NUM_DEPTHS - 1) - 1)),
            "weight_decay": weight_decay if is_decayed else 0.0,
        }
        for (depth, is_decayed), parameters in found.items()
    ]
    return [*groups, *head_groups(model, lr=head_lr, weight_decay=weight_decay)]


def head_groups(model: nn.Module, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Returns parameter groups of the head alone; its bias is not decayed."""
    assert isinstance(model, FineTuned)
    parameters = [p for p in model.head.parameters() if p.requires_grad]
    kinds = ((weight_decay, [p for p in parameters if p.ndim > 1]),
             (0.0, [p for p in parameters if p.ndim <= 1]))  # fmt: skip
    return [{"params": own, "lr": lr, "weight_decay": decay} for decay, own in kinds if own]


def parameters_in_words(model: nn.Module) -> str:
    """Returns how many parameters of a model are trained, in words."""
    every = list(model.parameters())
    trained = sum(p.numel() for p in every if p.requires_grad)
    return f"trainable: {trained:,} of {sum(p.numel() for p in every):,} parameters"


class PretrainedTrunk(Protocol):
    """A pretrained network of pictures or texts, by what a head needs to know of it."""

    @property
    def num_features(self) -> int:
        """The features that its trunk gives of an example."""
        ...

    def fresh_trunk(self) -> nn.Module:
        """Returns a copy of the trunk with the pretrained weights."""
        ...


def fine_tuned_model(
    network: PretrainedTrunk, tune: str, num_classes: int, probe: LinearProbe
) -> nn.Module:
    """Returns the pretrained trunk with the solved head."""
    head = StandardizedLinear(network.num_features, num_classes, probe)
    return FineTuned(network.fresh_trunk(), head, tune)
