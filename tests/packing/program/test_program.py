"""The forward and backward pass of members as one function of tensors."""

import pytest
import torch

from volano.packing.program.program import Graph, numbers_as_tensors
from volano.packing.refusal import NotPackable


def test_numbers_that_vary_are_not_narrower_than_the_parameters_arithmetic():
    rows = [{"weight": 0.1}, {"weight": 0.3}]
    for dtype, kept in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert numbers_as_tensors(rows, torch.zeros(2, dtype=dtype))["weight"].dtype == kept


def test_a_graph_runs_without_the_python_that_made_it():
    calls = []

    def function(tree, factor):
        calls.append(1)
        return {"sum": (tree["x"] * factor).sum(), "same": tree["y"]}

    given = {"x": torch.ones(3), "y": torch.zeros(2)}, torch.tensor(2.0)
    graph = Graph(function, *given)
    made = len(calls)
    found = graph({"x": torch.full((3,), 5.0), "y": torch.ones(2)}, torch.tensor(3.0))
    assert (found["sum"].item(), found["same"].tolist(), len(calls)) == (45.0, [1.0, 1.0], made)


def test_what_looks_at_values_is_no_graph():
    with pytest.raises(NotPackable):
        Graph(lambda x: x if x.sum() > 0 else -x, torch.ones(3))
