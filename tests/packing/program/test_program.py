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


def test_what_changes_no_number_leaves_a_graph_and_writes_stay():
    def function(x, held):
        same = x.view(2, 2).permute(0, 1).detach()
        turned = same.permute(1, 0)  # of the same shape, and another tensor
        same.select(0, 0)
        held.copy_(turned * 2)
        return same + held

    given = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.zeros(2, 2)
    graph = Graph(function, *given)
    names = [n.target.name() for n in graph._module.graph.nodes if n.op == "call_function"]
    assert names == ["aten::permute", "aten::mul.Tensor", "aten::copy_", "aten::add.Tensor"]
    held = torch.zeros(2, 2)
    assert graph(given[0], held).tolist() == [[3.0, 8.0], [7.0, 12.0]]
    assert held.tolist() == [[2.0, 6.0], [4.0, 8.0]]
