import pytest
import torch

from volano.training.prefix.mapped_rows import MappedRows


def test_rows_are_read_as_they_were_written(tmp_path):
    like = torch.empty(0, dtype=torch.float16)
    rows = MappedRows(5, (2, 3), like, tmp_path / "new", lambda rows: rows)
    numbers = torch.randn(4, 2, 3).half()
    rows.put(1, numbers)
    assert torch.equal(rows.take(torch.tensor([4, 1])), numbers[[3, 0]])
    assert not any((tmp_path / "new").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        MappedRows(1, (1,), torch.empty(0), tmp_path / "file", torch.clone)
