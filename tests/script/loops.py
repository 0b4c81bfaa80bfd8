"""Training loops as people write them, small; each returns its losses."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

LEAST_BATCHES = 10  # enough for a loader to be given workers


class Squares(Dataset):
    """Pictures with labels, the same in every process."""

    def __init__(self, count: int = 40) -> None:
        self.count, self.gain, self.draws = count, 1.0, False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randn(1, 8, 8, generator=generator) * self.gain
        if self.draws:
            image = image + torch.randn(1, 8, 8)
        return image, index % 3


class Net(nn.Module):
    """Two convolutions with dropout, which draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.norm, self.drop, self.head = nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Linear(8, 3)
        self.seen: list[tuple[torch.dtype, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.second(self.norm(self.first(images)).relu())
        is_last = found.is_contiguous(memory_format=torch.channels_last)
        self.seen.append((found.dtype, is_last))
        return self.head(self.drop(found.relu().mean((2, 3))))


def plain_loop(
    data: Dataset | None = None, *, epochs: int = 2, make=torch.optim.AdamW, net=None, **of_loader
) -> list[float]:
    """Trains and returns every step's loss."""
    torch.manual_seed(3)
    net = net or Net()
    loader = DataLoader(data or Squares(), batch_size=4, shuffle=True, **of_loader)
    optimizer, loss_of = make(net.parameters(), lr=1e-2), nn.CrossEntropyLoss()
    losses = []
    for _ in range(epochs):
        net.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_of(net(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses
