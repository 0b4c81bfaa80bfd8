import pytest
import torch

from volano.training.prefix import kept_features
from volano.training.prefix.feature_room import FeatureRoom, NoRoomError
from volano.training.prefix.kept_features import FeatureColumn


@pytest.mark.parametrize("memory_bytes", [None, 500, 0])
@pytest.mark.parametrize("piece", [1, 500, 10**6])
def test_rows_come_back_with_their_layout(monkeypatch, tmp_path, piece, memory_bytes):
    monkeypatch.setattr(kept_features, "_PIECE_BYTES", piece)
    room = FeatureRoom(memory_bytes, 10**6, tmp_path)
    rows = torch.randn(7, 3, 4, 5).to(memory_format=torch.channels_last)
    column = FeatureColumn(rows, 20, room)
    column.put(0, rows[:3])
    column.put(3, rows[3:])
    found = column.take([6, 0, 3, 3])
    assert torch.equal(found, rows[[6, 0, 3, 3]])
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (room.mapped > 0) == (memory_bytes is not None)
    assert not any(tmp_path.iterdir())  # files have no names


@pytest.mark.parametrize("memory_bytes", [None, 0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64])
def test_rows_that_do_not_lie_in_one_piece_are_taken_as_plain_ones(tmp_path, dtype, memory_bytes):
    rows = torch.randn(4, 6).t().to(dtype)
    column = FeatureColumn(rows, 6, FeatureRoom(memory_bytes, 10**6, tmp_path))
    column.put(0, rows)
    assert torch.equal(column.take([5, 1]), rows[[5, 1]])
    numbers = torch.arange(3)
    column = FeatureColumn(numbers, 3, FeatureRoom(memory_bytes, 10**6, tmp_path))
    column.put(0, numbers)
    assert column.take([2, 0]).tolist() == [2, 0]


def test_there_is_an_end_to_memory_and_disk(tmp_path):
    column = FeatureColumn(torch.zeros(1, 8), 4, FeatureRoom(100, 20))
    with pytest.raises(NoRoomError, match="takes more than the 0 MiB of memory and 0 MiB of disk"):
        column.put(0, torch.zeros(2, 8))
    (tmp_path / "file").write_text("")
    column = FeatureColumn(torch.zeros(1, 8), 4, FeatureRoom(0, 10**6, tmp_path / "file"))
    with pytest.raises(NoRoomError, match="cannot be written"):
        column.put(0, torch.zeros(2, 8))
