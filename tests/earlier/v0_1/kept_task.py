"""The task and the study of the folders beside this file; as they were when those were written."""

import functools

import torch
from sklearn.datasets import load_digits

import volano

pixels, labels = load_digits(return_X_y=True)
pixels, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


def model():
    return torch.nn.Sequential(
        torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 10)
    )


def objective(model, batch):
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def make(lr=3e-3):
    return volano.Task(
        model=model,
        objective=objective,
        data=torch.utils.data.TensorDataset(pixels[:512], labels[:512]),
        valid=torch.utils.data.TensorDataset(pixels[512:640], labels[512:640]),
        optimizer=functools.partial(torch.optim.AdamW, lr=lr),
        schedule=volano.cosine(warmup=0.05),
        batch_size=64,
        duration="2ep",
        clip_norm=1.0,
        ema_decay=0.9,
    )


task = make()


def build(trial):
    return make(lr=trial.suggest_float("lr", 1e-4, 1e-1, log=True))
