"""Pictures in a folder, decoded and resized one by one.

    python jpeg_folder.py --data jpegs

A folder that is not there is filled with pictures first.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


def make_pictures(folder, count, size):
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    for number in range(count):
        kind = number % 4
        random = np.random.default_rng(number)
        wave = np.sin(rows / (9 + 4 * kind)) + np.cos(columns / (25 - 4 * kind))
        noise = random.normal(0, 0.5, (*wave.shape, 3))
        picture = np.clip(128 + 50 * (wave[..., None] + noise), 0, 255).astype(np.uint8)
        place = folder / str(kind)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.jpg", quality=90)


class PictureFolder(Dataset):
    def __init__(self, root, size):
        self.paths = sorted(Path(root).glob("*/*.jpg"))
        self.size = size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        image = Image.open(path).convert("RGB").resize((self.size, self.size))
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (tensor - 0.5) / 0.25, int(path.parent.name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="jpegs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    if not Path(args.data).is_dir():
        small = (80, (64, 48)) if args.small else (800, (640, 480))
        make_pictures(Path(args.data), *small)
    data = PictureFolder(args.data, 64)
    loader = DataLoader(data, batch_size=8 if args.small else 32, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 5, stride=2), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(args.epochs):
        losses = []
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.6f}")


if __name__ == "__main__":
    main()
