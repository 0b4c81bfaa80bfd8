"""Weights in files, and whether they fit."""

import pytest
import torch
from torch import nn

from volano.errors import UsageError
from volano.pretrained.read_weights import digest_of_weights, load_fitting, read_weights
from volano.training import save_tensors


class Runs:
    """An object whose reading would run code."""

    def __reduce__(self):
        return (print, ("code ran",))


def test_tensors_are_read_and_code_is_not(tmp_path, capsys):
    weights = nn.Linear(2, 3).state_dict()
    save_tensors(weights, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{n}": t for n, t in weights.items()}}, tmp_path / "b.pth")
    for file in ("a.safetensors", "b.pth"):
        assert torch.equal(read_weights(tmp_path / file)["weight"], weights["weight"])
    torch.save({"weight": Runs()}, tmp_path / "c.pth")
    with pytest.raises(UsageError, match="tensors and nothing else"):
        read_weights(tmp_path / "c.pth")
    assert "code ran" not in capsys.readouterr().out


def test_what_does_not_fit_names_tensors_and_shapes():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    weights = {**network.state_dict(), "0.weight": torch.zeros(5, 2), "more": torch.zeros(1)}
    del weights["1.bias"]
    with pytest.raises(UsageError, match=r"1\.bias is missing; more is not of the network; 0\.we"):
        load_fitting(network, weights, whose="x.pth")


def test_a_digest_knows_weights_again():
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    assert digest_of_weights(one) != digest_of_weights(other)
    other.load_state_dict(one.state_dict())
    assert digest_of_weights(one) == digest_of_weights(other)


def test_any_damaged_file_is_told_in_words(tmp_path):
    for name, content in (("a.pth", b"no pickle"), ("b.pth", b""), ("c.safetensors", b"\0" * 9)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="tensors and nothing else"):
            read_weights(tmp_path / name)
    torch.save({"weight": torch.zeros(2), "epoch": 3}, tmp_path / "d.pt")
    with pytest.raises(UsageError, match=r"d\.pt with 'epoch': int"):
        read_weights(tmp_path / "d.pt")


def test_names_and_counts_of_other_versions_are_taken(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights = {
        f"_orig_mod.module.{n}": t for n, t in network.state_dict().items() if "num_" not in n
    }
    torch.save(weights, tmp_path / "compiled.pt")  # as torch before 0.4.1 wrote BatchNorm
    load_fitting(network, read_weights(tmp_path / "compiled.pt"), whose="x")
