"""Damaged files, full disks, folders that changed: what a run makes of them."""

import json
import os
import pickle
import resource
import shutil
import subprocess
import threading

import pytest
import torch
from torch import nn

import volano
from children import Forked
from conftest import Quiet, StopAt, classification, experiment_records
from training.damage import DAMAGES, flip
from volano.errors import CheckpointError, UsageError
from volano.record import files
from volano.running.end_run import write_report
from volano.training import RunFolder, Safety
from volano.training.checkpoints.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)

EVERY_STEP, PLAIN = Safety(save_every="1st"), volano.Plan.baseline("cpu")


@pytest.fixture(scope="module")
def whole(make_task, tmp_path_factory):
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return volano.train(make_task(), out=out, observer=Quiet())


@pytest.fixture(scope="module")
def stopped_once(make_task, tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped") / "run"
    run = volano.train(make_task(), out=out, observer=StopAt(9), safety=EVERY_STEP)
    assert [path.name for path in list_checkpoints(run.path / "checkpoints")] == [
        "step-00000008",
        "step-00000009",
    ]
    return run.path


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A run that was stopped after 9 of 32 steps, with checkpoints of steps 8 and 9."""
    return shutil.copytree(stopped_once, tmp_path / "run")


def assert_same_weights(one, other):
    for got, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(got, expected)


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("name", ["state.pt", "manifest.json"])
    def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
        self, make_task, quiet, whole, stopped, name, damage
    ):
        path = stopped / "checkpoints" / "step-00000009"
        if (name, damage) == ("manifest.json", "flipped bit"):
            flip(path / name, where=0.9)  # within the digest; a bit of a space would change nothing
        else:
            DAMAGES[damage](path / name)
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        assert any("step-00000009" in notice and "passed over" in notice for notice in run.notices)
        assert_same_weights(run.model, whole.model)
        assert experiment_records(run.path) == experiment_records(whole.path)
        kept = sorted(path.name for path in (run.path / "checkpoints").iterdir())
        assert kept == ["damaged-step-00000009", "step-00000031", "step-00000032"]

    def test_a_missing_checkpoint_is_no_loss_of_the_other(self, make_task, quiet, stopped):
        shutil.rmtree(stopped / "checkpoints" / "step-00000009")
        assert volano.resume(stopped, task=make_task(), observer=quiet).status == "finished"

    def test_a_checkpoint_under_anothers_name(self, stopped):
        (stopped / "checkpoints" / "step-00000009").rename(
            stopped / "checkpoints" / "step-00000012"
        )
        step, _, problems = load_latest(stopped / "checkpoints")
        assert step == 8
        assert "named after its step; got step 9" in problems[0]

    def test_when_all_are_damaged_nothing_is_assumed(self, make_task, quiet, stopped):
        for path in list_checkpoints(stopped / "checkpoints"):
            flip(path / "state.pt")
        with pytest.raises(
            CheckpointError,
            match=r"(?s)none in .*step-00000009.*step-00000008.*resume from the first",
        ):
            volano.resume(stopped, task=make_task(), observer=quiet)
        assert RunFolder.open(stopped).read_json("run.json")["status"] == "stopped"
        shutil.rmtree(stopped / "checkpoints")
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        assert any("begins at its first step" in notice for notice in run.notices)
        assert run.status == "finished"

    @pytest.mark.parametrize("damage", ["cut", "emptied", "another's"])
    @pytest.mark.parametrize("name", ["run.json", "task.json", "plan.json"])
    def test_a_damaged_description_is_named(self, make_task, quiet, stopped, name, damage):
        DAMAGES[damage](stopped / name)
        with pytest.raises(
            volano.VolanoError, match=f"{name.removesuffix('.json')}|run's folder|plan's file"
        ):
            volano.resume(stopped, task=make_task(), observer=quiet)

    def test_figures_with_a_torn_last_line_and_damage_in_the_middle(
        self, make_task, quiet, whole, stopped
    ):
        with (stopped / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 10, "loss": 2.3')
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        assert experiment_records(run.path) == experiment_records(whole.path)
        content = (run.path / "metrics.jsonl").read_bytes().splitlines()
        content[3] = b"\xff\xfe{" + content[3][4:]
        content[5] = b"17"
        (run.path / "metrics.jsonl").write_bytes(b"\n".join(content))
        assert len(RunFolder.open(run.path).read_lines("metrics.jsonl")) == len(content) - 2

    def test_what_a_killed_process_left_half_written_goes(self, make_task, quiet, stopped):
        for name in (".partial-step-00000010", ".partial-old-step-00000007"):
            shutil.copytree(
                stopped / "checkpoints" / "step-00000009", stopped / "checkpoints" / name
            )
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
        assert names == ["step-00000031", "step-00000032"]


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target):
        self._target = target

    def __reduce__(self):
        return (os.mkdir, (str(self._target),))


class TestStrangers:
    """Nothing that is loaded is executed."""

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    @pytest.mark.parametrize("form", ["torch", "pickle"])
    def test_a_checkpoint(self, make_task, quiet, tmp_path, stopped, form):
        import hashlib

        path = stopped / "checkpoints" / "step-00000009"
        state = {**load_checkpoint(path)[1], "extra": Malicious(tmp_path / "owned")}
        if form == "torch":
            torch.save(state, path / "state.pt")
        else:
            (path / "state.pt").write_bytes(pickle.dumps(state))
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["state_sha256"] = hashlib.sha256((path / "state.pt").read_bytes()).hexdigest()
        (path / "manifest.json").write_text(json.dumps(manifest))
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        assert any("nothing to execute" in notice for notice in run.notices)
        assert run.status == "finished"
        assert not (tmp_path / "owned").exists()


def test_no_code_of_volano_unpickles_what_it_finds():
    """torch.load without weights_only, pickle.load and numpy with pickles would execute what a
    stranger wrote."""
    import re
    from pathlib import Path

    root = Path(volano.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        if path.name == "isolated.py" or path.parent.name == "workers":
            continue  # they read what processes that they started wrote to them
        assert not re.search(
            r"pickle\.loads?\(|Unpickler\(|allow_pickle=True|weights_only=False", text
        ), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, path


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path):
        """A mounted file system of one MiB."""
        if os.getuid() != 0:
            pytest.skip("only root may mount one")
        place = tmp_path / "disk"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        yield place
        subprocess.run(["umount", str(place)], check=True)

    def test_the_run_goes_on_warns_and_saves_again_when_there_is_room(
        self, make_task, quiet, small_disk
    ):
        ballast = small_disk / "ballast"

        class Fill(Quiet):
            def on_log(self, record):
                super().on_log(record)
                folder = small_disk / "run" / "checkpoints"
                if record["step"] == 6:
                    # The save before has ended, and what it removed is gone: no room comes free by
                    # itself any more.
                    for thread in threading.enumerate():
                        if thread.name.startswith("volano-checkpoint"):
                            thread.join(timeout=60)
                    with ballast.open("wb", buffering=0) as file:
                        try:
                            while True:
                                file.write(bytes(4096))
                        except OSError:
                            pass
                if record["step"] == 14:
                    assert load_latest(folder)[0] <= 6
                    ballast.unlink()

        observer = Fill()
        run = volano.train(
            make_task(), out=small_disk / "run", observer=observer, safety=EVERY_STEP
        )
        assert run.status == "finished"
        # Told once, and when it is over.
        (notice,) = [notice for notice in run.notices if "not saved" in notice]
        assert "No space left" in notice
        assert any("saved again at step" in notice for notice in run.notices)
        assert load_latest(run.path / "checkpoints")[0] == 32

    def test_lines_that_were_lost_do_not_spoil_their_neighbours(self, tmp_path, monkeypatch):
        folder = RunFolder(tmp_path)
        folder.append("metrics.jsonl", {"step": 1})
        real_open = files.open_to_append

        def torn(path):
            file = real_open(path)
            file.write(b'{"st')
            file.close()
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files, "open_to_append", torn)
            folder.append("metrics.jsonl", {"step": 2})
        folder.append("metrics.jsonl", {"step": 3})
        assert [record["step"] for record in folder.read_lines("metrics.jsonl")] == [1, 3]
        assert folder.lost.keys() == {"metrics.jsonl"}


class TestALimitOfTheSizeOfFiles:
    def test_it_is_said_with_what_helps_and_the_run_is_resumed(self, make_task, tmp_path):
        def wide():
            return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))

        task, out = make_task(model=wide, duration="4st"), tmp_path / "run"

        def train():
            # A write beyond it fails as on a full disk.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            with pytest.raises(CheckpointError, match=r"File too large.*Raise the limit"):
                volano.train(task, out=out, observer=Quiet(), safety=EVERY_STEP, plan=PLAIN)

        child = Forked(tmp_path / "output", train)
        assert child.wait() == 0, child.output.read_text()
        record = RunFolder.open(out).read_json("run.json")
        assert record["status"] == "failed"
        assert "File too large" in record["reason"]
        (notice,) = record["notices"]
        assert notice.startswith("not saved at step 1: A checkpoint must be writable")
        assert "Raise the limit of a file's size (ulimit -f)" in notice
        assert [path.name for path in out.rglob("*partial*")] == []
        assert "File too large" in write_report(out).read_text()
        assert volano.resume(out, task=task, observer=Quiet()).status == "finished"


class TestAFolderThatIsRemoved:
    def test_it_is_made_again_and_holds_all_that_a_run_needs(self, make_task, tmp_path, whole):
        class Rename(StopAt):
            def on_log(self, record):
                super().on_log(record)
                if record["step"] == 6:
                    (tmp_path / "run").rename(tmp_path / "elsewhere")

        run = volano.train(
            make_task(), out=tmp_path / "run", observer=Rename(20), safety=EVERY_STEP
        )
        assert run.status == "stopped"
        (notice,) = [text for text in run.notices if "folder was removed before step" in text]
        assert "made again" in notice
        again = volano.resume(run.path, task=make_task(), observer=Quiet())
        assert again.metrics == whole.metrics
        assert_same_weights(again.model, whole.model)
        assert not (run.path / "owner.json").exists()


class TestBeforeTheFirstCheckpoint:
    def test_a_run_that_was_killed_goes_on_from_its_first_step(
        self, make_task, quiet, tmp_path, whole
    ):
        run = volano.train(make_task(), out=tmp_path / "run", observer=StopAt(5))
        # As if it had been killed at step 5, with its lines written.
        shutil.rmtree(run.path / "checkpoints")
        RunFolder.open(run.path).update_run(status="running")
        again = volano.resume(run.path, task=make_task(), observer=quiet)
        assert experiment_records(again.path) == experiment_records(whole.path)
        assert again.metrics == whole.metrics
        assert_same_weights(again.model, whole.model)

    def test_with_another_task_it_is_refused(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=StopAt(5))
        shutil.rmtree(run.path / "checkpoints")
        with pytest.raises(CheckpointError, match="seed: 4 != 3"):
            volano.resume(run.path, task=make_task(seed=4), observer=quiet)

    def test_one_that_was_killed_while_being_prepared_is_started_again(
        self, make_task, quiet, tmp_path
    ):
        folder = RunFolder.reserve(tmp_path / "run", "task")
        folder.make()
        folder.release()
        with pytest.raises(UsageError, match="killed while it was being prepared.*`out`"):
            volano.resume(tmp_path / "run", task=make_task(), observer=quiet)
        assert volano.train(make_task(), out=tmp_path / "run", observer=quiet).status == "finished"

    def test_one_that_runs_is_not_started_over(self, make_task, quiet, tmp_path):
        run = volano.train(make_task(), out=tmp_path / "run", observer=StopAt(5))
        shutil.rmtree(run.path / "checkpoints")
        RunFolder.open(run.path).update_run(status="running")
        with pytest.raises(UsageError, match="which exists.*volano resume"):
            volano.train(make_task(), out=run.path, observer=quiet)


class TestChangedData:
    def test_another_length_is_refused_with_both_digests(self, make_task, quiet, stopped, digits):
        pixels, labels = digits
        other = torch.utils.data.TensorDataset(pixels[:520], labels[:520])
        task = make_task(data=other, duration="32st")
        with pytest.raises(
            CheckpointError, match=r"(?s)data: .*'num_examples': 520.*!=.*'num_examples': 512"
        ):
            volano.resume(stopped, task=task, observer=quiet)

    def test_other_content_is_refused_with_both_digests(self, make_task, quiet, stopped, digits):
        pixels, labels = digits
        other = torch.utils.data.TensorDataset(pixels[:512].flip(0).contiguous(), labels[:512])
        with pytest.raises(
            CheckpointError, match=r"(?s)'content_digest': '(\w+)'.*!=.*'content_digest': '(?!\1)"
        ):
            volano.resume(stopped, task=make_task(data=other), observer=quiet)


class TestCorruptExamples:
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_replacements_depend_on_nothing_but_the_data(
        self, make_task, quiet, tmp_path, digits, workers
    ):
        pixels, labels = digits

        class Broken(torch.utils.data.Dataset):
            def __len__(self):
                return 512

            def __getitem__(self, index):
                if index % 50 == 3:
                    raise OSError(f"digit {index} cannot be read")
                return pixels[index], labels[index]

            def path_of(self, index):
                return f"/photos/{index}.jpg"

        plan = volano.Plan.baseline().pin(workers=workers)
        run = volano.train(
            make_task(data=Broken()), plan=plan, out=tmp_path / "run", observer=quiet
        )
        reference = volano.train(
            make_task(data=Broken()),
            plan=volano.Plan.baseline(),
            out=tmp_path / "other",
            observer=quiet,
        )
        assert_same_weights(run.model, reference.model)
        faults = [
            json.loads(line) for line in (run.path / "quarantine.jsonl").read_text().splitlines()
        ]
        assert sorted(fault["index"] for fault in faults) == [3 + 50 * k for k in range(11)]
        assert {fault["path"] for fault in faults} == {
            f"/photos/{3 + 50 * k}.jpg" for k in range(11)
        }
        assert "cannot be read" in faults[0]["reason"]

    def test_ranks_agree_on_every_replacement(self):
        from volano.data import Fetcher, Order

        class Broken(torch.utils.data.Dataset):
            def __len__(self):
                return 64

            def __getitem__(self, index):
                if index % 9 == 3:
                    raise ValueError("corrupt")
                return torch.tensor(index)

        order = Order(num_examples=64, batch_size=16, seed=5)
        for step in range(8):
            whole = Fetcher(Broken(), None, 5)(order.key(step)).batch
            for world in (2, 4):
                parts = [
                    Fetcher(Broken(), None, 5)(order.key(step, rank=r, world_size=world)).batch
                    for r in range(world)
                ]
                assert torch.equal(torch.stack(parts, dim=1).flatten(), whole)

    def test_files_that_vanish_in_mid_run(self, make_task, quiet, tmp_path, digits):
        pixels, labels = digits
        place = tmp_path / "photos"
        place.mkdir()
        for index in range(256):
            torch.save((pixels[index].clone(), labels[index].clone()), place / f"{index}.pt")

        class Files(torch.utils.data.Dataset):
            def __len__(self):
                return 256

            def __getitem__(self, index):
                return torch.load(self.path_of(index), weights_only=True)

            def path_of(self, index):
                return str(place / f"{index}.pt")

        class Vanish(Quiet):
            def on_log(self, record):
                if record["step"] == 9:
                    for index in range(0, 250, 25):
                        (place / f"{index}.pt").unlink()

        task = make_task(data=Files(), duration="4ep")
        plan = volano.Plan.baseline().pin(workers=1)
        run = volano.train(task, plan=plan, out=tmp_path / "run", observer=Vanish())
        faults = [
            json.loads(line) for line in (run.path / "quarantine.jsonl").read_text().splitlines()
        ]
        assert run.status == "finished"
        assert {fault["path"] for fault in faults} == {
            str(place / f"{index}.pt") for index in range(0, 250, 25)
        }
        assert all("No such file" in fault["reason"] for fault in faults)

    def test_a_list_with_a_torn_last_line(self, make_task, quiet, stopped):
        (stopped / "quarantine.jsonl").write_bytes(
            b'{"set": "data", "index": 7, "path": null, "reason": "x"}\n{"set": "da'
        )
        run = volano.resume(stopped, task=make_task(), observer=quiet)
        assert len((run.path / "quarantine.jsonl").read_text().splitlines()) == 1


def test_a_module_of_ones_own_with_state_in_buffers_goes_round(make_task, quiet, tmp_path):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 10)
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))

        def forward(self, x):
            if self.training:
                self.seen += len(x)
            return self.linear(x)

    task = make_task(model=Counts, objective=classification)
    run = volano.train(task, out=tmp_path / "run", observer=StopAt(9), safety=EVERY_STEP)
    assert int(volano.resume(run.path, task=task, observer=quiet).model.seen) == 32 * 32


def test_a_folder_whose_checkpoints_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="whole checkpoint; got none"):
        load_latest(tmp_path / "nothing")
    save_checkpoint(tmp_path, 1, {"value": 1})
    assert load_latest(tmp_path)[0] == 1
