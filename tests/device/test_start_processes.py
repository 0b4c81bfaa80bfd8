"""How values travel between processes."""

import multiprocessing
import pickle

import pytest
import torch

from volano.device.start_processes import pickled, start_method


def test_processes_are_forked_where_that_can_be():
    assert (start_method() == "fork") == ("fork" in multiprocessing.get_all_start_methods())


@pytest.mark.parametrize("cut", [slice(0, 3), slice(500, None, 100), slice(0, 0)])
def test_a_view_travels_without_the_memory_into_which_it_looks(cut):
    view = torch.arange(1000.0)[cut]
    content = pickled({"view": view})
    assert len(content) < 2000 + 4 * 500
    arrived = pickle.loads(content)["view"]
    assert torch.equal(arrived, view)
    assert arrived.stride() == view.stride()


def test_strides_and_types_arrive():
    for tensor in (
        torch.rand(4, 6).t()[1:3],
        torch.ones(2, dtype=torch.bfloat16),
        torch.zeros(()),
        torch.rand(3).bool(),
    ):
        arrived = pickle.loads(pickled(tensor))
        assert torch.equal(arrived, tensor)
        assert (arrived.dtype, arrived.stride()) == (tensor.dtype, tensor.stride())


def test_a_graph_of_gradients_does_not_travel():
    leaf = torch.ones(2, requires_grad=True)
    assert pickle.loads(pickled(leaf)).requires_grad
    with pytest.raises(TypeError, match=r"carries a graph of gradients; detach\(\) it"):
        pickled([leaf * 2])
