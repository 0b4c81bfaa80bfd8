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


def _setting(seed: int = 3) -> tuple[Net, DataLoader, nn.CrossEntropyLoss]:
    torch.manual_seed(seed)
    return Net(), DataLoader(Squares(24), batch_size=4, shuffle=True), nn.CrossEntropyLoss()


def two_optimizers() -> list[float]:
    """A GAN: the discriminator's step with two backward passes, then the generator's."""
    critic, loader, _ = _setting()
    maker = nn.Sequential(
        nn.Linear(4, 64), nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 1, 3, padding=1)
    )
    steps = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (critic, maker)]
    loss_of, losses = nn.BCEWithLogitsLoss(), []
    for images, _ in loader:
        one, zero = torch.ones(len(images)), torch.zeros(len(images))
        made = maker(torch.randn(len(images), 4))
        steps[0].zero_grad()
        real = loss_of(critic(images)[:, 0], one)
        real.backward()
        fake = loss_of(critic(made.detach())[:, 0], zero)
        fake.backward()
        steps[0].step()
        steps[1].zero_grad()
        fooled = loss_of(critic(made)[:, 0], one)
        fooled.backward()
        steps[1].step()
        losses += [real.item(), fake.item(), fooled.item()]
    return losses


def accumulated() -> list[float]:
    """Two micro-batches a step."""
    net, loader, loss_of = _setting()
    optimizer, losses = torch.optim.AdamW(net.parameters()), []
    for number, (images, labels) in enumerate(loader, 1):
        loss = loss_of(net(images), labels) / 2
        loss.backward()
        losses.append(loss.item())
        if number % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
    return losses


def evaluated() -> list[float]:
    """Two steps, an evaluation, and an end before the loader's."""
    net, loader, loss_of = _setting()
    optimizer, losses = torch.optim.AdamW(net.parameters()), []
    for number, (images, labels) in enumerate(loader):
        net.train()
        optimizer.zero_grad()
        loss = loss_of(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if number % 2:
            net.eval()
            with torch.no_grad():
                for images, _ in loader:
                    net(images)
        if number == 3:
            break
    return losses


def twice_backward() -> list[float]:
    """Two backward passes through one graph, and a gradient's penalty."""
    net, loader, loss_of = _setting()
    optimizer, losses = torch.optim.AdamW(net.parameters()), []
    for images, labels in loader:
        optimizer.zero_grad()
        images.requires_grad_()
        found = net(images)
        loss = loss_of(found, labels)
        loss.backward(retain_graph=True)
        (slope,) = torch.autograd.grad(found.sum(), images, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        penalty.backward()
        optimizer.step()
        losses += [loss.item(), penalty.item()]
    return losses


def closures() -> list[float]:
    """An optimizer that computes several times in a step."""
    net, loader, loss_of = _setting()
    optimizer, losses = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=2), []
    for images, labels in loader:

        def closure(images=images, labels=labels):
            optimizer.zero_grad()
            loss = loss_of(net(images), labels)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
    return losses


LOOPS = (two_optimizers, accumulated, evaluated, twice_backward, closures)
