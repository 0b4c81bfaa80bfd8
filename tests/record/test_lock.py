"""Only one process at a time can work in a run's folder."""

import json
import os
import subprocess
import sys

import pytest

import volano
from conftest import Quiet
from volano.errors import RunError, UsageError
from volano.record import lock
from volano.record.lock import RunLock, read_owner, started, who_am_i
from volano.training import RunFolder

HOLD = """
import sys, time, pathlib
from volano.record.lock import RunLock
held = RunLock.acquire(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds ``tmp_path`` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def write_owner(path, **changes):
    (path / "owner.json").write_text(json.dumps({**who_am_i(), **changes}))


def test_a_second_process_is_refused_and_a_killed_one_is_in_nobodys_way(tmp_path, other_process):
    with pytest.raises(
        UsageError, match=rf"held by process {other_process.pid} on .*Wait for it, or stop it"
    ):
        RunLock.acquire(tmp_path)
    other_process.kill()
    other_process.wait()
    assert read_owner(tmp_path)["pid"] == other_process.pid  # what it left behind
    RunLock.acquire(tmp_path).release()
    assert list(tmp_path.iterdir()) == []


def test_a_second_thread_of_the_same_process_is_refused(tmp_path):
    held = RunLock.acquire(tmp_path)
    with pytest.raises(UsageError, match=f"held by process {os.getpid()}"):
        RunLock.acquire(tmp_path / ".")
    held.release()
    RunLock.acquire(tmp_path).release()


def test_a_lock_that_nobody_released_goes_with_its_object(tmp_path):
    held = RunLock.acquire(tmp_path)
    del held
    RunLock.acquire(tmp_path).release()


def test_a_forked_child_does_not_give_it_free(tmp_path):
    held = RunLock.acquire(tmp_path)
    child = os.fork()
    if child == 0:
        held.__del__()
        os._exit(0)
    os.waitpid(child, 0)
    assert read_owner(tmp_path)["pid"] == os.getpid()
    held.release()


def test_children_do_not_keep_it(tmp_path):
    # Worker processes outlive a killed parent for seconds; an inherited flock(2) would stay with
    # them.
    code = HOLD.replace(
        'print("held"', 'import os\nif os.fork() == 0:\n    time.sleep(60)\nprint("held"'
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "held\n"
    try:
        process.kill()
        process.wait()
        RunLock.acquire(tmp_path).release()
    finally:
        os.killpg(process.pid, 9)  # its child
        process.stdin.close()
        process.stdout.close()


class TestWithoutTheKernelsLock:
    """A file system without locks: the record decides."""

    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch):
        monkeypatch.setattr(lock, "fcntl", None)

    def test_a_process_that_lives_is_refused(self, tmp_path, other_process):
        with pytest.raises(UsageError, match=f"held by process {other_process.pid}"):
            RunLock.acquire(tmp_path)

    def test_a_dead_one_is_not(self, tmp_path, other_process):
        other_process.kill()
        other_process.wait()
        RunLock.acquire(tmp_path).release()

    def test_a_number_that_another_process_has_by_now_is_known_by_its_start(self, tmp_path):
        write_owner(tmp_path, pid=os.getppid(), started="12")
        assert started(os.getppid()) != "12"
        RunLock.acquire(tmp_path).release()
        write_owner(tmp_path, pid=os.getppid(), started=started(os.getppid()))
        with pytest.raises(UsageError, match=f"held by process {os.getppid()}"):
            RunLock.acquire(tmp_path)

    def test_nobody_can_ask_another_machine_so_it_warns(self, tmp_path):
        write_owner(tmp_path, host="node7", pid=12)
        told = []
        RunLock.acquire(tmp_path, told.append).release()
        assert told == [
            f"{tmp_path} was held by process 12 on node7: make sure that it no longer works there"
        ]

    def test_the_remedy_for_a_machine_that_is_gone(self, tmp_path):
        write_owner(tmp_path, host="node7")
        assert "if that machine is gone, remove" in str(
            lock._refusal(tmp_path, read_owner(tmp_path))
        )


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"pid": "x"}', b'{"pid": -1}', b"null"]
)
def test_a_damaged_record_is_in_nobodys_way(tmp_path, content):
    (tmp_path / "owner.json").write_bytes(content)
    RunLock.acquire(tmp_path).release()


def test_who_was_taken_over_notices_and_saves_nothing_more(make_task, tmp_path):
    class TakeOver(Quiet):
        def on_log(self, record):
            super().on_log(record)
            if record["step"] == 3:
                write_owner(tmp_path / "run", host="node7")

    with pytest.raises(RunError, match="must belong to one process; got .*on node7 took over"):
        volano.train(
            make_task(),
            out=tmp_path / "run",
            observer=TakeOver(),
            safety=volano.Safety(save_every="1st"),
        )
    # The other's to say.
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "running"
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "step-00000001",
        "step-00000002",
    ]


class TestRuns:
    def test_a_run_that_works_is_neither_resumed_nor_started_again(self, make_task, tmp_path):
        seen = []

        class Nosy(Quiet):
            def on_log(self, record):
                if not seen:
                    for attempt in (
                        lambda: volano.resume(tmp_path / "run", task=make_task(), observer=Quiet()),
                        lambda: RunFolder(tmp_path / "run").make(),
                    ):
                        with pytest.raises(UsageError, match="Only one process at a time"):
                            attempt()
                        seen.append(1)

        run = volano.train(make_task(), out=tmp_path / "run", observer=Nosy())
        assert run.status == "finished"
        assert len(seen) == 2
        assert not (run.path / ".lock").exists()

    def test_a_run_that_fails_gives_its_folder_free(self, make_task, tmp_path):
        with pytest.raises(volano.VolanoError):
            volano.train(
                make_task(objective=lambda model, batch: 1.0),
                out=tmp_path / "run",
                observer=Quiet(),
            )
        RunLock.acquire(tmp_path / "run").release()

    @pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_may_not_be_written_to(self, make_task, tmp_path):
        (tmp_path / "run").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="can be made; got .*Permission denied"):
            volano.train(make_task(), out=tmp_path / "run", observer=Quiet())
