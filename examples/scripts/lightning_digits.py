"""Handwritten digits with Lightning.

python lightning_digits.py --epochs 5
"""

import argparse

import lightning as L
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self, repeat):
        digits = load_digits()
        self.images = (digits.images * 15).astype(np.uint8)
        self.labels, self.repeat = digits.target, repeat

    def __len__(self):
        return len(self.labels) * self.repeat

    def __getitem__(self, index):
        index %= len(self.labels)
        image = Image.fromarray(self.images[index]).resize((32, 32), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(image)).float()[None] / 255, int(self.labels[index])


class Classifier(L.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, 10),
        )  # fmt: skip

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = nn.functional.cross_entropy(self.net(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self):
        print(f"epoch {self.current_epoch}: loss {self.trainer.callback_metrics['train_loss']:.6f}")

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    L.seed_everything(0, verbose=False)
    data = Digits(1 if args.small else 10)
    loader = DataLoader(data, batch_size=64, shuffle=True)
    trainer = L.Trainer(
        max_epochs=args.epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(8 if args.small else 24), loader)


if __name__ == "__main__":
    main()
