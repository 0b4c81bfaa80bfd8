"""Solved heads for labels and numbers, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score

from volano.pretrained.head_solvers import RidgeHead, SigmoidHead, average_precisions
from volano.pretrained.linear_probe import LinearProbe, solve_probe
from volano.training import save_tensors


def data(num=120, num_features=6, num_outputs=3):
    draw = np.random.default_rng(0)
    X = draw.normal(size=(num, num_features))
    return X, X @ draw.normal(size=(num_features, num_outputs)) + draw.normal(size=num_outputs)


def test_labels_are_separate_logistic_regressions():
    X, outputs = data()
    Y = (outputs > 0).astype(np.uint8)
    ((_, solved),) = SigmoidHead().path(X, Y, (0.1,))
    for label in range(3):
        own = LogisticRegression(C=0.1, tol=1e-8).fit(X, Y[:, label])
        np.testing.assert_allclose(solved.weight[:, label], own.coef_[0], atol=0.02)
        np.testing.assert_allclose(solved.bias[label], own.intercept_[0], atol=0.02)


def test_numbers_are_a_ridge_regression():
    X, Y = data()
    for c, solved in RidgeHead().path(X + 3, Y, (0.01, 1.0)):
        own = Ridge(alpha=1 / c).fit(X + 3, Y)
        np.testing.assert_allclose(solved.weight.T, own.coef_, atol=1e-9)
        np.testing.assert_allclose(solved.bias, own.intercept_, atol=1e-8)


def test_average_precision_with_ties_and_repeated_examples():
    draw = np.random.default_rng(1)
    scores, wanted = draw.integers(0, 6, (40, 4)) / 5, draw.integers(0, 2, (40, 4))
    wanted[:, 3] = 0
    found = average_precisions(scores, wanted)
    own = [average_precision_score(wanted[:, label], scores[:, label]) for label in range(3)]
    np.testing.assert_allclose(found[:3], own)
    assert np.isnan(found[3])
    counts = draw.integers(0, 3, 40)
    again = average_precisions(np.repeat(scores, counts, 0), np.repeat(wanted, counts, 0))
    np.testing.assert_allclose(average_precisions(scores, wanted, counts)[:3], again[:3])


@pytest.mark.parametrize("solver", [SigmoidHead(), RidgeHead()])
def test_a_probe_is_solved_judged_and_kept(solver, tmp_path):
    X, outputs = data(num_outputs=2)
    wanted = outputs > 0 if isinstance(solver, SigmoidHead) else outputs / outputs.std(0)
    features = torch.from_numpy(X).float()
    probe = solve_probe(features, torch.from_numpy(wanted.astype(np.float32)), solver, seed=0)
    assert probe.weight.shape == (2, 6)
    assert probe.accuracy > 0.9
    assert probe.in_words().startswith(f"{solver.figure} to expect of a linear head: ")
    # Of two labels, unlike of two classes, each has weights of its own.
    assert probe.weight_decay == 1 / (probe.c * 120)
    probe.save(tmp_path / "probe.safetensors", save_tensors)
    assert LinearProbe.load(tmp_path / "probe.safetensors").weight_decay == probe.weight_decay
