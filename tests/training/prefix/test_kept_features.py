import pytest
import torch

from volano.training.prefix import kept_features
from volano.training.prefix.kept_features import Allowance, FeatureColumn, NoRoomError


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_rows_come_back_with_their_layout(monkeypatch, piece):
    monkeypatch.setattr(kept_features, "_PIECE_BYTES", piece)
    rows = torch.randn(7, 3, 4, 5).to(memory_format=torch.channels_last)
    column = FeatureColumn(rows, 20, Allowance())
    column.put(0, rows[:3])
    column.put(3, rows[3:])
    found = column.take([6, 0, 3, 3])
    assert torch.equal(found, rows[[6, 0, 3, 3]])
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_rows_that_do_not_lie_in_one_piece_are_taken_as_plain_ones():
    rows = torch.randn(4, 6).t()
    column = FeatureColumn(rows, 6, Allowance())
    column.put(0, rows)
    assert torch.equal(column.take([5, 1]), rows[[5, 1]])


def test_there_is_an_end_to_the_memory():
    column = FeatureColumn(torch.zeros(1, 8), 4, Allowance(100))
    with pytest.raises(NoRoomError, match="takes more than the 0 MiB"):
        column.put(0, torch.zeros(2, 8))
