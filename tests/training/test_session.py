"""A session makes the model of a task, and what belongs to it."""

import torch
from torch import nn

from volano.plan import Plan
from volano.training import Session


class Frozen(nn.BatchNorm1d):
    """Stays in evaluation mode, as a person's own `train` may say."""

    def train(self, mode=True):
        return super().train(False)


def in_evaluation_mode():
    """Like what `from_pretrained` gives."""
    net = nn.Sequential(
        nn.Linear(64, 8), nn.Dropout(0.5), Frozen(8), nn.BatchNorm1d(8), nn.Linear(8, 10)
    )
    return net.eval()


def test_a_model_in_evaluation_mode_is_trained_in_training_mode(make_task):
    task = make_task(model=in_evaluation_mode)
    session = Session(task, Plan.baseline())
    assert session.model.training
    _, dropout, frozen, norm, _ = session.model
    assert (dropout.training, frozen.training, norm.training) == (True, False, True)
    before = norm.running_mean.clone()
    batch = next(iter(session.feed.batches(session.order.keys(0, 1))))
    session.step_once(batch, 0)
    assert not torch.equal(norm.running_mean, before)
    session.evaluate()
    assert (dropout.training, frozen.training, norm.training) == (True, False, True)
