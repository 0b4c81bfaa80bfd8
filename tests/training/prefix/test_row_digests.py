"""Examples that differ have other digests, equal ones the same, wherever they stand."""

import pytest
import torch

from volano.training.prefix.row_digests import RowDigests


def both(tensors):
    digests = RowDigests(torch.device("cpu"))
    return [digests(tensors), [tuple(row) for row in digests.multilinear(tensors).tolist()]]


def test_a_digest_is_of_the_row():
    x, y = torch.rand(6, 5, 3), torch.arange(6, dtype=torch.uint8)
    y[5], x[5] = y[0], x[0]
    for found in both([x, y]):
        assert len(set(found)) == 5
        assert found[5] == found[0]
    order = torch.tensor([3, 1, 0])
    for found, moved in zip(both([x, y]), both([x[order], y[order]]), strict=True):
        assert moved == [found[n] for n in (3, 1, 0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.bfloat16])
def test_one_bit_counts(dtype):
    # One hot in each place: values whose low bits are all zero.
    x = torch.eye(67).to(dtype)
    for found in both([x]):
        assert len(set(found)) == 67
    for found in both([torch.cat([x, -x])]) if dtype.is_floating_point else []:
        assert len(set(found)) == 134


def test_which_tensor_a_value_stands_in_counts():
    x, zeros = torch.rand(2, 4), torch.zeros(2, 4)
    for one, other in zip(both([x, zeros]), both([zeros, x]), strict=True):
        assert set(one).isdisjoint(other)


def test_rows_without_values():
    for found in both([torch.zeros(3, 0)]):
        assert len(set(found)) == 1
