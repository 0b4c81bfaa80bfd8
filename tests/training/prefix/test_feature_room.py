import pytest

from volano.device import Device
from volano.training.prefix.feature_room import FeatureRoom, NoRoomError


def test_what_does_not_fit_into_memory_is_mapped_and_said(tmp_path):
    heard = []
    room = FeatureRoom(100, 150, tmp_path)
    room.on_mapped = heard.append
    assert [room.take(80), room.take(80), room.take(20), room.take(70)] == [1, 0, 1, 0]
    assert (room.taken, room.mapped, room.in_memory(500)) == (100, 150, 100)
    assert len(heard) == 1
    assert str(tmp_path) in heard[0]
    with pytest.raises(NoRoomError, match="of disk that there are for it"):
        room.take(1)


def test_why_rows_are_not_kept():
    room = FeatureRoom(2**20, 2**30)
    assert room.why_not(2.0**10, 2**10, 0.0) is None
    assert room.why_not(2.0**20, 2**9, 1.0) is None
    assert "1,024 MiB of what it computes are more than the 1 MiB" in room.why_not(
        2.0**20, 2**10, 0
    )
    assert "reading the rest from a disk" in room.why_not(2.0**20, 2**9, 0.01)
    assert "is more than 1,024 MiB of disk" in room.why_not(2.0**20, 2**11, 1.0)
    assert FeatureRoom().why_not(2.0**40, 2**20, 0.0) is None


def test_the_room_of_a_device_and_of_a_budget(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none" / "yet"))
    room = FeatureRoom.of(Device("cpu"), 1000)
    assert room.memory_bytes == 400
    assert room.disk_bytes > 0
    assert room.folder == tmp_path / "none" / "yet" / "volano"
    assert FeatureRoom.of(Device("cpu")).memory_bytes > 1000


def test_a_folder_that_cannot_be_entered_is_no_room(monkeypatch):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr("volano.training.prefix.feature_room.shutil.disk_usage", refuse)
    assert FeatureRoom.of(Device("cpu"), 1000).disk_bytes == 0
