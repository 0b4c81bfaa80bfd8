"""Final weights load anywhere; a file that is damaged or a stranger's is refused."""

import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import volano
from conftest import make_mlp
from training.damage import DAMAGES
from volano.errors import CheckpointError
from volano.training import load_weights
from volano.training.checkpoints.weights import (
    build_and_load,
    save_tensors,
    save_weights,
    shapes_in,
)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self._target = target

    def __reduce__(self):
        return (os.mkdir, (str(self._target),))


@pytest.mark.parametrize("damage", DAMAGES)
def test_final_weights(make_task, quiet, tmp_path, damage):
    run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    path = run.path / "model.safetensors"
    load_weights(make_mlp(), path)
    DAMAGES[damage](path)  # the flipped bit is one of a weight
    with pytest.raises(
        CheckpointError, match=r"model.safetensors must (be readable|have the digest)"
    ):
        load_weights(make_mlp(), path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**62) + b"{}",  # a header longer than any file
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 66)
        + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'
        + b"0000",
        struct.pack("<Q", 56)
        + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,99]}}  '
        + b"0000",
    ],
)
def test_weights(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="must be readable"):
        load_weights(make_mlp(), path)


def test_a_pickle_in_place_of_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (pickle.dumps(Malicious(tmp_path / "owned")),):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="must be readable"):
            load_weights(make_mlp(), path)
    torch.save({"weight": Malicious(tmp_path / "owned")}, path)
    with pytest.raises(CheckpointError, match="must be readable"):
        load_weights(make_mlp(), path)
    assert not (tmp_path / "owned").exists()


def test_the_final_weights_load_anywhere(make_task, quiet, tmp_path):
    run = volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    model = make_mlp()
    model.load_state_dict(load_file(run.path / "model.safetensors"))
    for got, expected in zip(model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_tied_weights_are_written_and_read(make_task, quiet, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(64, 8, bias=False), nn.Linear(8, 64, bias=False)
            self.up.weight = nn.Parameter(self.down.weight.T)
            self.again = self.down
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            return self.head(self.again(self.up(self.down(x))))

    run = volano.train(make_task(model=Tied), out=tmp_path / "run", observer=quiet)
    model = Tied()
    load_weights(model, run.path / "model.safetensors")
    assert torch.equal(model.again.weight, run.model.down.weight)


def test_weights_of_another_structure_are_refused(tmp_path):
    save_weights(nn.Linear(3, 2), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="The weights must belong to the model") as caught:
        load_weights(nn.Linear(2, 3), tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_tensors({"a": torch.ones(2)}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("volano.training.checkpoints.weights.save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_tensors({"a": torch.zeros(2)}, path)
    assert load_file(path)["a"].tolist() == [1.0, 1.0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_others_may_read_what_the_user_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_shapes_are_read_off_the_header(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    save_weights(model, tmp_path / "model.safetensors")
    assert shapes_in(tmp_path / "model.safetensors") == {
        name: list(tensor.shape) for name, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize("content", [
    b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x02" + b"\0" * 7 + b"{", b"no weights at all",
    b"\x0a" + b"\0" * 7 + b'{"a": {}}', b"\x08" + b"\0" * 7 + b'{"a": 1}',
])  # fmt: skip
def test_a_header_that_is_none_is_said(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="must be readable"):
        build_and_load(lambda: nn.Linear(3, 2), tmp_path / "model.safetensors")


def test_a_folder_whose_name_is_no_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"run\xe9")
    folder.mkdir()
    model = nn.Linear(3, 2)
    save_weights(model, folder / "model.safetensors")
    found = build_and_load(lambda: nn.Linear(3, 2), folder / "model.safetensors")
    assert torch.equal(found.weight, model.weight)


def test_a_model_of_other_shapes_is_not_built(tmp_path):
    save_weights(nn.Linear(3, 2), tmp_path / "model.safetensors")
    made = []

    def make():
        made.append(nn.Linear(4, 2))
        return made[-1]

    with pytest.raises(CheckpointError, match=r"weight of shape \[2, 3\] in .* has \[2, 4\]"):
        build_and_load(make, tmp_path / "model.safetensors")
    assert [model.weight.device.type for model in made] == ["meta"]
