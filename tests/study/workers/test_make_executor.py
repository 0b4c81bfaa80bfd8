"""Where a study's trials are trained, as it was asked for."""

import pytest
import torch

from study.builds import digits_mlp
from volano.device import Device
from volano.errors import UsageError
from volano.study.workers import make_executor as placement
from volano.study.workers.executor import InProcess
from volano.study.workers.make_executor import devices_of_workers, make_executor
from volano.study.workers.messages import Assignment, Report, Trial
from volano.study.workers.process_pool import ProcessPool, can_fork


def assignment(number=0):
    return Assignment(
        number=number, trials=(Trial(number=0, params={"lr": 0.1, "dropout": 0.1}),), share=0.5
    )


def test_one_worker_is_this_process():
    with make_executor(digits_mlp, device="cpu") as executor:
        assert isinstance(executor, InProcess)
        assert executor.num_workers == 1
        assert executor.next_finished() is None
        executor.submit(0, assignment(3))
        worker, report = executor.next_finished()
        assert (worker, report.assignment) == (0, 3)
        assert executor.next_finished() is None
    executor.close()


def test_more_are_processes():
    with make_executor(digits_mlp, device="cpu", nproc=2, threads=1) as executor:
        assert isinstance(executor, ProcessPool)
        assert executor.num_workers == 2
        executor.submit(1, assignment())
        worker, report = executor.next_finished(60.0)
        assert worker == 1
        assert isinstance(report, Report)


@pytest.mark.skipif(not can_fork(threads=1), reason="processes are not forked here")
def test_what_cannot_be_pickled_is_forked_with_one_thread():
    notices = []
    with make_executor(
        lambda trial: digits_mlp(trial), device="cpu", nproc=2, threads=2, on_notice=notices.append
    ) as executor:
        executor.submit(0, assignment())
        assert executor.next_finished(60.0)[1].outcomes[0].failure is None
    assert notices
    assert "one thread each" in notices[0]


def test_numbers_that_cannot_be():
    with pytest.raises(UsageError, match="at least 1; got 0"):
        make_executor(digits_mlp, nproc=0)


class TestDevices:
    def test_cores_are_shared(self):
        assert devices_of_workers("cpu", 3) == ["cpu"] * 3
        assert devices_of_workers("cpu", None) == ["cpu"]

    def test_each_accelerator_has_a_worker(self, monkeypatch):
        class Two(Device):
            """A machine with two."""

            def __init__(self, name):
                self.torch_device, self.is_cpu = (
                    torch.device("mps" if name is None else name),
                    False,
                )

            @staticmethod
            def count():
                return 2

        monkeypatch.setattr(placement, "Device", Two)
        assert devices_of_workers(None, None) == ["mps:0", "mps:1"]
        assert devices_of_workers("mps", 1) == ["mps:0"]
        assert devices_of_workers("mps:1", None) == ["mps:1"]
        with pytest.raises(UsageError, match="an accelerator of its own; got 3 workers on 2"):
            devices_of_workers(None, 3)
        with pytest.raises(UsageError, match="2 workers on 1"):
            devices_of_workers("mps:0", 2)


def test_a_build_that_cannot_be_sent_trains_on_one_of_several_accelerators(monkeypatch):
    """Accelerators, whose driver does not survive a fork, need a build that can be pickled."""
    monkeypatch.setattr(placement, "can_fork", lambda **_: False)
    monkeypatch.setattr(placement, "devices_of_workers", lambda *_: ["cpu", "cpu"])
    notices = []
    with make_executor(lambda trial: digits_mlp(trial), on_notice=notices.append) as executor:
        assert isinstance(executor, InProcess)
    assert "one of 2 accelerators is used" in notices[0]
    with pytest.raises(UsageError):
        make_executor(lambda trial: digits_mlp(trial), nproc=2)
