"""Whatever happens to the child, the parent hears of it in one line and goes on."""

import functools
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from children import PATIENCE_SECONDS
from volano.device import isolated
from volano.device.isolated import IsolatedError, run_here, run_isolated, run_isolated_each
from volano.errors import ObjectiveError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")


def children() -> set[int]:
    """Of this process; other tests may have left some that serve the whole of it (multiprocessing's
    tracker)."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    return {int(pid) for pid in listed.read_text().split()} if listed.is_file() else set()


def reason(function, *args, timeout=PATIENCE_SECONDS) -> str:
    before = children()
    with pytest.raises(IsolatedError) as caught:
        run_isolated(function, *args, timeout=timeout)
    assert children() <= before  # nothing is left to wait for
    return caught.value.reason


def test_the_answer_comes_back():
    scale = 3.0
    big = run_isolated(
        lambda x: {"y": scale * x, "big": b"x" * 5_000_000}, 2.0, timeout=PATIENCE_SECONDS
    )
    assert big["y"] == 6.0
    assert len(big["big"]) == 5_000_000


def test_it_computes_with_gradients_after_the_parent_has_used_its_threads():
    torch.set_num_threads(2)
    try:
        torch.randn(400, 400) @ torch.randn(400, 400)

        def work():
            weight = torch.randn(300, 300, requires_grad=True)
            (weight @ torch.randn(300, 300)).sum().backward()
            return torch.get_num_threads(), float(weight.grad.sum())

        assert run_isolated(work, timeout=PATIENCE_SECONDS)[0] == 1
    finally:
        torch.set_num_threads(1)


def test_an_exception_is_its_first_line():
    def work():
        raise ObjectiveError("A loss is a number", got="two\nlines")

    assert reason(work) == "ObjectiveError: A loss is a number; got two"
    assert reason(sys.exit, 3) == "SystemExit: 3"


@pytest.mark.parametrize("number", ["SIGABRT", "SIGSEGV", "SIGKILL"])
def test_a_death_is_told_by_its_signal(number):
    assert (
        reason(lambda: os.kill(os.getpid(), getattr(signal, number)))
        == f"the process died with {number}"
    )


def test_leaving_without_an_answer_is_told():
    assert reason(lambda: os._exit(7)) == "the process ended with exit code 7 and no answer"


def test_a_hang_ends_at_the_timeout_even_if_it_ignores_signals():
    def work():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    start = time.monotonic()
    assert reason(work, timeout=0.3) == "gave no answer in 0.3 s"
    assert time.monotonic() - start < 500


def test_what_does_not_pickle_is_told():
    assert "pickle" in reason(lambda: lambda: 0)


def test_nothing_of_the_child_stays(tmp_path):
    torch.manual_seed(5)
    state, before = torch.get_rng_state(), signal.getsignal(signal.SIGINT)

    def work():
        torch.manual_seed(9)
        os.environ["VOLANO_CHILD"] = "1"
        return signal.getsignal(signal.SIGINT) == signal.SIG_DFL

    assert run_isolated(work, timeout=PATIENCE_SECONDS)
    assert torch.equal(state, torch.get_rng_state())
    assert "VOLANO_CHILD" not in os.environ
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of descriptors")
def test_a_process_with_many_files_open():
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] != resource.RLIM_INFINITY and limits[1] < 1200:
        pytest.skip("so many files may not be opened")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert run_isolated(lambda: 1, timeout=PATIENCE_SECONDS) == 1
    finally:
        for number in opened:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_parent_that_does_not_wait_for_its_children():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_isolated(lambda: 1, timeout=PATIENCE_SECONDS) == 1
        with pytest.raises(IsolatedError, match="the process ended without an answer"):
            run_isolated(os._exit, 3, timeout=PATIENCE_SECONDS)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_where_processes_are_not_forked_random_state_is_as_before(monkeypatch):
    monkeypatch.setattr("volano.device.isolated.start_method", lambda: "spawn")
    before = torch.get_rng_state()
    run_isolated(
        lambda: torch.manual_seed(7).initial_seed() + float(torch.rand(())),
        timeout=PATIENCE_SECONDS,
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_several_answer_in_order_and_one_that_fails_stands_among_them():
    before = children()
    found = run_isolated_each(
        [lambda: 1, lambda: 1 // 0, lambda: os._exit(3), os.getpid], timeout=PATIENCE_SECONDS
    )
    assert found[0] == 1
    assert "ZeroDivisionError" in found[1].reason
    assert found[2].reason == "the process ended with exit code 3 and no answer"
    assert found[3] != os.getpid()
    assert children() <= before


def test_nothing_is_left_of_several_that_are_interrupted(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(isolated, "_read", interrupted)
    before = children()
    with pytest.raises(KeyboardInterrupt):
        run_isolated_each([lambda: time.sleep(60)] * 2, timeout=PATIENCE_SECONDS)
    assert children() <= before


def warned() -> str:
    warnings.warn("of torch's own", DeprecationWarning, stacklevel=1)
    return "answer"


@pytest.mark.parametrize("run", [run_here, functools.partial(run_isolated, timeout=60.0)])
def test_a_warning_is_no_error_aside(run):
    assert run(warned) == "answer"  # where it is one in this process
