"""Checkpoints are whole or absent, and nothing in them is executed."""

import json
import os
from pathlib import Path

import pytest
import torch

from volano.errors import CheckpointError
from volano.training.checkpoints.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    set_aside_after,
    tidy_checkpoints,
)


class TestCheckpoints:
    def test_the_last_two_are_kept(self, tmp_path):
        for step in range(1, 6):
            save_checkpoint(tmp_path, step, {"value": torch.tensor(step)})
        assert [path.name for path in sorted(tmp_path.iterdir())] == [
            "step-00000004",
            "step-00000005",
        ]
        assert load_latest(tmp_path)[1]["value"].item() == 5

    def test_a_damaged_one_is_named_and_passed_over(self, make_task, quiet, tmp_path):
        for step in (1, 2):
            save_checkpoint(tmp_path, step, {"value": step})
        file = tmp_path / "step-00000002" / "state.pt"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        step, state, problems = load_latest(tmp_path)
        assert (step, state["value"]) == (1, 1)
        assert "step-00000002" in problems[0]

    @pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
    def test_a_missing_file_is_named(self, tmp_path, name):
        save_checkpoint(tmp_path, 1, {"value": 1})
        (tmp_path / "step-00000001" / name).unlink()
        with pytest.raises(CheckpointError, match=f"(?s)whole checkpoint; got none.*{name}"):
            load_latest(tmp_path)

    def test_nothing_is_executed_on_loading(self, tmp_path):
        class Malicious:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "owned"),))

        save_checkpoint(tmp_path, 1, {"value": Malicious()})
        with pytest.raises(Exception, match="(?i)weights.only|unsupported"):
            load_checkpoint(tmp_path / "step-00000001")
        assert not (tmp_path / "owned").exists()

    def test_a_full_disk_leaves_the_previous_one_whole(self, tmp_path, monkeypatch):
        save_checkpoint(tmp_path, 1, {"value": 1})
        real_save = torch.save

        def full(state, file):
            real_save(state, file)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match=r"must be writable; got .*No space left"):
            save_checkpoint(tmp_path, 2, {"value": 2})
        assert load_latest(tmp_path)[0] == 1
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_called_by_its_name(tmp_path, monkeypatch):
    real_open = Path.open

    def on_a_full_disk(self, mode="r", *args, **kwargs):
        # Unbuffered, as a large file is: the write itself fails.
        return (
            real_open(Path("/dev/full"), "wb", buffering=0)
            if self.name == "state.pt" and "w" in mode
            else real_open(self, mode, *args, **kwargs)
        )

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, 1, {"value": torch.zeros(1000)})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_tidied_away(tmp_path):
    save_checkpoint(tmp_path, 3, {"value": 1})
    for name in (".partial-step-00000004", ".partial-old-step-00000002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.pt").write_bytes(b"half")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003"]
    tidy_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_later_checkpoints_that_were_passed_over_do_not_count(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"value": step})
    set_aside_after(tmp_path, 1)
    set_aside_after(tmp_path, 1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000001"]
    assert (tmp_path / "damaged-step-00000002").is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "reads checkpoints of schema version 1; got 99"),
        ({"step": 2}, "named after its step; got step 2"),
        ({"step": "1"}, "named after its step; got step '1'"),
        ({"state_sha256": "0"}, "must have the digest in its manifest"),
        ({"colour": 1}, "readable manifest.json.*colour"),
        ({"shards_sha256": 7}, "readable manifest.json"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path, change, message):
    path = save_checkpoint(tmp_path, 1, {"value": 1})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_digests_can_be_left_to_another_rank(tmp_path):
    path = save_checkpoint(tmp_path, 1, {"value": 1})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "state_sha256": "0"}))
    assert load_checkpoint(path, verify=False) == (1, {"value": 1})


def test_a_step_that_is_saved_again_is_replaced(tmp_path):
    save_checkpoint(tmp_path, 1, {"value": 1})
    save_checkpoint(tmp_path, 1, {"value": 2})
    assert load_latest(tmp_path)[1] == {"value": 2}
