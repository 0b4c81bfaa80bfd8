"""Parts of tensors are taken out of a state and put back, for this session's ranks."""

import pytest
import torch

from volano.errors import CheckpointError
from volano.training.checkpoints import shards


class Part(torch.Tensor):
    """A tensor that says of itself that it is a part of a larger one."""

    def full_tensor(self):
        return self


def part(*values):
    return torch.tensor(values).as_subclass(Part)


def test_a_state_without_parts_is_as_it_was():
    state = {"a": torch.ones(2), "b": [1, ("x", None)]}
    kept, parts = shards.take_out(state)
    assert parts == {}
    assert kept["a"] is state["a"]
    assert kept["b"] == [1, ("x", None)]
    assert not shards.is_sharded(state)


def test_parts_are_named_by_their_place():
    state = {"model": {"weight": part(1.0, 2.0)}, "groups": [{"moment": part(3.0)}, 4]}
    kept, parts = shards.take_out(state)
    assert shards.is_sharded(state)
    assert list(parts) == ["model.weight", "groups.0.moment"]
    assert kept["groups"][1] == 4
    assert kept["model"]["weight"] == {
        "sharded tensor": "model.weight",
        "shape": [2],
        "dtype": "float32",
    }
    # What is left can be loaded with weights_only=True: no class of ours or of torch's is in it.
    assert type(kept["groups"][0]["moment"]) is dict


def test_what_was_written_comes_back_whole_in_a_single_process(tmp_path):
    state = {"step": 3, "model": {"weight": part(1.0, 2.0)}, "moments": [part(3.0)]}
    kept, parts = shards.take_out(state)
    plain = {name: tensor.as_subclass(torch.Tensor) for name, tensor in parts.items()}
    shards.save(tmp_path / shards.FOLDER, plain)
    found = shards.put_back(kept, tmp_path, lambda _: None)
    assert found["step"] == 3
    assert torch.equal(found["model"]["weight"], torch.tensor([1.0, 2.0]))
    assert torch.equal(found["moments"][0], torch.tensor([3.0]))


def test_whole_tensors_stay_where_the_session_has_whole_ones(tmp_path):
    state = {"weight": torch.ones(2)}
    assert shards.put_back(state, tmp_path, lambda _: torch.zeros(2))["weight"] is state["weight"]


def test_a_type_that_torch_has_not_is_refused(tmp_path):
    mark = {"sharded tensor": "weight", "shape": [2], "dtype": "nn"}
    with pytest.raises(CheckpointError, match="have a type of torch's; got 'nn'"):
        shards.put_back({"weight": mark}, tmp_path, lambda _: None)
