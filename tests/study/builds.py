"""Build functions that another process can import."""

import functools
import os
import signal
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import volano


def _make_net(dropout):
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))


def _objective(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


@functools.cache
def _sets():
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels[:192], dtype=torch.float32) / 16, torch.tensor(labels[:192])
    return TensorDataset(x[:128], y[:128]), TensorDataset(x[128:], y[128:])


def digits_mlp(trial):
    """A net for the digits: 128 examples, 4 epochs of 4 steps."""
    rate, dropout = trial.suggest_float("lr", 0.001, 1.0), trial.suggest_float("dropout", 0.0, 0.5)
    data, valid = _sets()
    return volano.Task(
        model=functools.partial(_make_net, dropout),
        objective=_objective,
        data=data,
        valid=valid,
        optimizer=functools.partial(torch.optim.SGD, lr=rate),
        batch_size=32,
        duration="4ep",
    )


def unlucky(trial):
    """The same; a trial with ``lr`` above 0.5 ends its process, once for each file in the folder
    ``MARKS``; one above 0.4 is killed, and one above 0.3 sleeps."""
    rate = trial.suggest_float("lr", 0.001, 1.0)
    marks = sorted(Path(os.environ["MARKS"]).iterdir()) if "MARKS" in os.environ else []
    if rate > 0.5 and marks:
        marks[0].unlink()
        os._exit(3)
    if 0.4 < rate <= 0.5 and marks:
        marks[0].unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if 0.3 < rate <= 0.4:
        time.sleep(600)
    return digits_mlp(trial)
