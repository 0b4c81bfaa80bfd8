"""A table of numbers and a deep net, with a line for every step.

python reads_loss.py --epochs 1 > steps.txt
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    count, width = (1024, 32) if args.small else (65536, 128)
    inputs = torch.randn(count, 32)
    targets = (inputs[:, :8].sin().sum(1, keepdim=True) > 0).float()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)
    layers = [nn.Linear(32, width), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(width, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for _ in range(args.epochs):
        for x, y in loader:
            logits = model(x)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
            accuracy = ((logits > 0) == (y > 0)).float().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            print(f"step {step}: loss {loss.item():.6f}, accuracy {accuracy.item():.3f}")


if __name__ == "__main__":
    main()
