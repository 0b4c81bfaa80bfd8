"""Nets with frozen parts, which count how often these are run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Trunk(nn.Module):
    """A frozen part that counts its calls outside of itself."""

    calls = 0

    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), *more)

    def forward(self, x):
        """48 features."""
        Trunk.calls += 1
        return self.layers(x)


class Frozen(nn.Module):
    """A trunk that is frozen, in evaluation mode even in training, and a head."""

    def __init__(self, *more: nn.Module, trunk: nn.Module | None = None) -> None:
        super().__init__()
        self.trunk = (Trunk(*more) if trunk is None else trunk).requires_grad_(False)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(48, 10))
        self.train()

    def train(self, mode=True):
        """Leaves the trunk in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, x):
        """Logits."""
        return self.head(self.trunk(x))


class Pieces(Frozen):
    """The same in many calls, with functions between them."""

    def forward(self, x):
        """Logits."""
        linear, norm, _ = self.trunk.layers
        return self.head(torch.relu(norm(linear(x))).flatten(1))


class Leaking(Frozen):
    """Uses an output within the trunk as well."""

    def forward(self, x):
        """Logits."""
        inner = self.trunk.layers[0](x)
        return self.head(self.trunk.layers[1:](inner) + inner)


class Drawing(nn.Module):
    """Draws whatever its mode."""

    def forward(self, x):
        """With noise."""
        return x + torch.randn_like(x)


class Projection(nn.Module):
    """A linear layer without parts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(48, 64) / 8)
        self.register_buffer("mean", torch.zeros(48))
        self.calls = 0

    def forward(self, x):
        """48 features."""
        return nn.functional.linear(x, self.weight)


class Writing(Projection):
    """Writes a buffer at each call."""

    def forward(self, x):
        """48 features."""
        found = super().forward(x)
        self.mean.mul_(0.9).add_(found.mean(0), alpha=0.1)
        return found - self.mean


class Coupled(Projection):
    """Features that depend on the batch."""

    def forward(self, x):
        """48 features, centred."""
        found = super().forward(x)
        return found - found.mean(0)


class Counting(Projection):
    """Counts its calls."""

    def forward(self, x):
        """48 features."""
        self.calls += 1
        return super().forward(x)


class Many(Frozen):
    """A trunk with a result of several parts, one of which nothing uses."""

    class Parts(nn.Module):
        """Gives a dictionary."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = Trunk()

        def forward(self, x, scale=1.0, *, mask: Any = None):
            """Features, and more."""
            found = self.trunk(x) * scale
            return {"hidden": found[:, None] * mask[:, :, None], "pooled": found, "more": None}

    def __init__(self) -> None:
        super().__init__(trunk=self.Parts())

    def forward(self, x):
        """Logits."""
        mask = (x[:, :5] >= 0).float()
        return self.head(self.trunk(x, 2.0, mask=mask)["pooled"])
