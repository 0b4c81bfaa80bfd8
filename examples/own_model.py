"""Your own model on your own tensors.

    volano train examples/own_model.py:task --out runs/own-model
    python examples/own_model.py

The data is scikit-learn's table of 569 breast-cell samples: thirty measurements, benign or
malignant.
"""

import functools

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import TensorDataset

import volano


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(30), nn.Linear(30, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)
    )


def objective(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    measurements, labels = batch
    return nn.functional.cross_entropy(model(measurements), labels)


def task() -> volano.Task:
    measurements, labels = load_breast_cancer(return_X_y=True)
    data = torch.tensor(measurements, dtype=torch.float32), torch.tensor(labels)
    return volano.Task(
        name="own-model",
        model=make_model,
        objective=objective,
        data=TensorDataset(*(part[:450] for part in data)),
        valid=TensorDataset(*(part[450:] for part in data)),
        optimizer=functools.partial(torch.optim.AdamW, lr=3e-3),
        schedule=volano.cosine(warmup=0.05),
        batch_size=50,
        duration="30ep",
        evaluate_every="10ep",
    )


if __name__ == "__main__":
    run = volano.train(task())
    print(
        f"validation loss {run.metrics['valid_loss']:.3f}; everything about the run lies in "
        f"{run.path}"
    )
