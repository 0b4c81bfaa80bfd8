"""The linear head that is solved on frozen features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from volano.errors import CheckpointError
from volano.pretrained.fine_tuned import StandardizedLinear
from volano.pretrained.head_solvers import SoftmaxHead
from volano.pretrained.linear_probe import LinearProbe, _chosen, solve_probe, some_of_each
from volano.training import save_tensors


@pytest.fixture(scope="module", params=[2, 3])
def data(request):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % request.param
    features = torch.randn(60, 12, generator=generator) * 3 + 5
    features[:, :3] += 2.0 * torch.nn.functional.one_hot(labels, 3)
    features[:, 11] = 1.0
    return features, labels, request.param


def test_it_is_scikit_learns_solution(data):
    features, labels, num_classes = data
    probe = solve_probe(features, labels, SoftmaxHead(num_classes=num_classes), seed=0)
    X = (features - probe.center).numpy() * probe.scale.numpy()
    c = probe.c * (2 if num_classes == 2 else 1)  # it counts the difference of two classes alone
    other = LogisticRegression(C=c, max_iter=1000).fit(X, labels.numpy())
    head = StandardizedLinear(12, num_classes, probe)
    found = head(features).softmax(1).detach().numpy()
    assert np.abs(found - other.predict_proba(X)).max() < 0.005
    deviations = features.std(0, correction=0)
    own, alike = 1 / deviations[:11], 1 / deviations.square().mean().sqrt()
    is_alike = torch.allclose(probe.scale[:11], alike)
    assert is_alike or torch.allclose(probe.scale[:11], own, rtol=1e-4)
    assert probe.accuracy is not None
    assert 1 / num_classes < probe.accuracy <= 1.0
    assert "15 folds of 60 training examples" in probe.in_words()


def moved(data, num_steps, share, rate):
    """By how much of itself the solved head's weight moves, in steps of a share of the examples, at
    so many times the rate that all examples allow."""
    features, labels, num_classes = data
    probe = solve_probe(features, labels, SoftmaxHead(num_classes=num_classes), seed=0)
    head = StandardizedLinear(12, num_classes, probe)
    optimizer = torch.optim.SGD(
        [{"params": [head.linear.weight], "weight_decay": probe.weight_decay},
         {"params": [head.linear.bias]}],
        lr=rate * probe.learning_rate, momentum=0.9, nesterov=True,
    )  # fmt: skip
    before = head.linear.weight.detach().clone()
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    batches = rows.split(round(share * len(rows)))
    for step in range(num_steps):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features[batch]), labels[batch]).backward()
        optimizer.step()
    return float((head.linear.weight.detach() - before).norm() / before.norm())


def test_trained_on_it_stays_where_it_is(data):
    assert moved(data, num_steps=50, share=1.0, rate=1.0) < 0.05


def test_steps_of_a_few_examples_move_it_little_at_their_share_of_the_rate(data):
    found = moved(data, num_steps=1, share=1 / 15, rate=1 / 15)
    assert found < 0.2
    assert moved(data, num_steps=1, share=1 / 15, rate=1.0) > 5 * found


def test_a_class_of_one_example_has_no_figure():
    labels = torch.tensor([0] * 6 + [1])
    probe = solve_probe(torch.randn(7, 4), labels, SoftmaxHead(num_classes=2), seed=0)
    assert (probe.accuracy, probe.figures) == (None, {})
    assert "not known" in probe.in_words()


def test_it_is_kept_in_a_file(data, tmp_path):
    features, labels, num_classes = data
    probe = solve_probe(features, labels, SoftmaxHead(num_classes=num_classes), seed=0)
    probe.save(tmp_path / "probe.safetensors", save_tensors)
    found = LinearProbe.load(tmp_path / "probe.safetensors")
    assert torch.equal(found.weight, probe.weight)
    assert (found.c, found.accuracy, found.num_folds) == (probe.c, probe.accuracy, 15)
    assert found.figures == probe.figures
    assert found.figures["cross_validated"] == probe.accuracy
    (tmp_path / "probe.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="readable"):
        LinearProbe.load(tmp_path / "probe.safetensors")


def test_of_many_examples_some_of_each_class_are_taken():
    labels = np.array([0] * 9000 + [1] * 10)
    rows = some_of_each(labels, 2)
    assert (len(rows), (labels[rows] == 1).sum()) == (2010, 10)
    assert len(some_of_each(labels[:100], 2)) == 100


def test_copies_are_judged_together():
    features = torch.randn(12, 40, generator=torch.Generator().manual_seed(1)).repeat(5, 1)
    labels = (torch.arange(12) % 2).repeat(5)
    solver = SoftmaxHead(num_classes=2)
    flattered = solve_probe(features, labels, solver, seed=0)
    honest = solve_probe(features, labels, solver, seed=0, keys=[*"abcdefghijkl"] * 5)
    assert flattered.accuracy == 1.0
    assert honest.accuracy < 0.9  # of noise nothing is known
    assert honest.num_examples == 60


def test_a_stronger_penalty_is_taken_if_a_weaker_is_better_by_chance_alone():
    figures = {(True, 0.01): [0.5, 0.6], (True, 0.1): [0.55, 0.65], (False, 0.1): [0.5, 0.72]}
    assert _chosen(figures) == (True, 0.1)  # 0.01 behind, 0.06 of it by chance
    figures[True, 0.01] = [0.53, 0.6]
    assert _chosen(figures) == (True, 0.01)  # 0.045 behind
    # In each fold a little worse is worse, however far apart the folds are.
    sure = {(True, 0.01): [0.5, 0.9], (True, 0.1): [0.52, 0.91], (False, 0.1): [0.521, 0.9095]}
    assert _chosen(sure) == (True, 0.1)
    assert _chosen({}) == (True, 0.01)
