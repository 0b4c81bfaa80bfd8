"""Fashion-MNIST as tutorials train it: transforms an example at a time, a loop by hand.

python tutorial_loop.py --epochs 5 --data /usr/share/datasets/fashion-mnist
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


class ToTensor:
    def __call__(self, image):
        array = np.array(image, dtype=np.uint8)
        return torch.from_numpy(array).unsqueeze(0).float().div(255)


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def __call__(self, tensor):
        return (tensor - self.mean) / self.std


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class FashionMNIST(Dataset):
    def __init__(self, root, train, transform, limit=None):
        name = "train" if train else "t10k"
        self.images = read_idx(Path(root) / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        self.labels = read_idx(Path(root) / f"{name}-labels-idx1-ubyte.gz", 8)
        self.images, self.labels = self.images[:limit], self.labels[:limit]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = Image.fromarray(self.images[index]).resize((32, 32), Image.Resampling.BILINEAR)
        return self.transform(image), int(self.labels[index])


def read_idx(path, offset):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(32 * 8 * 8, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)
        )

    def forward(self, x):
        return self.classifier(self.features(x))


def train(model, loader, loss_fn, optimizer, device):
    model.train()
    total = 0.0
    for batch, (images, labels) in enumerate(loader):
        images, labels = images.to(device), labels.to(device)
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if batch % 100 == 0:
            print(f"batch {batch}: loss {loss.item():.6f}")
    return total / len(loader)


def test(model, loader, device):
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            correct += (model(images).argmax(1) == labels).sum().item()
    return correct / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transform = Compose([ToTensor(), Normalize(0.2860, 0.3530)])
    limit = 1280 if args.small else None
    train_data = FashionMNIST(args.data, True, transform, limit)
    test_data = FashionMNIST(args.data, False, transform, limit)
    train_loader = DataLoader(train_data, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_data, batch_size=256)
    model = Net().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        loss = train(model, train_loader, loss_fn, optimizer, device)
        accuracy = test(model, test_loader, device)
        print(f"epoch {epoch}: loss {loss:.6f}, test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
