"""Signals ask for an end, and are put back."""

import os
import signal
import threading
import time

import pytest

import volano
from volano.training.signals import Interruption, SignalBell, StopRequest


def send(name=signal.SIGINT):
    os.kill(os.getpid(), name)


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_only_asks(name):
    before = signal.getsignal(name)
    with StopRequest() as stop:
        assert not stop.requested
        send(name)
        assert stop.requested
    assert signal.getsignal(name) == before


def test_a_second_ctrl_c_interrupts_and_a_second_sigterm_does_not():
    with StopRequest() as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_another_thread_sets_no_handlers():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


class TestInterruption:
    def test_what_waits_is_interrupted(self):
        with Interruption() as stop, pytest.raises(KeyboardInterrupt), stop.waiting():
            send()

    def test_what_works_is_not_and_the_next_wait_is(self):
        worked = []
        with Interruption() as stop:
            send()
            worked.append("to its end")
            with pytest.raises(KeyboardInterrupt), stop.waiting():
                worked.append("never")
            with pytest.raises(KeyboardInterrupt):
                stop.check()
        assert worked == ["to its end"]

    def test_a_wait_that_is_over_is_not_interrupted(self):
        with Interruption() as stop:
            with stop.waiting():
                pass
            send(signal.SIGTERM)
            assert stop.requested

    def test_without_a_signal_nothing_is_raised(self):
        with Interruption() as stop, stop.waiting():
            stop.check()


def test_handlers_are_put_back(make_task, quiet, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    volano.train(make_task(), out=tmp_path / "run", observer=quiet)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_in_another_thread_leaves_signals_alone(make_task, quiet, tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(volano.train(make_task(), out=tmp_path / "r", observer=quiet))
    )
    thread.start()
    thread.join()
    assert runs[0].status == "finished"


class TestBell:
    def test_another_thread_hears_at_once(self):
        heard = []
        old = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            with SignalBell() as bell:
                assert not bell.has_rung()

                def listen():
                    os.kill(os.getpid(), signal.SIGTERM)
                    deadline = time.monotonic() + 20
                    while not bell.has_rung() and time.monotonic() < deadline:
                        time.sleep(0.01)
                    heard.append(bell.has_rung())

                thread = threading.Thread(target=listen)
                thread.start()
                thread.join()
                assert heard == [True]
                assert bell.has_rung()
        finally:
            signal.signal(signal.SIGTERM, old)
        assert signal.set_wakeup_fd(-1) == -1

    def test_other_signals_are_not_heard(self):
        old = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            with SignalBell() as bell:
                os.kill(os.getpid(), signal.SIGUSR1)
                assert not bell.has_rung()
        finally:
            signal.signal(signal.SIGUSR1, old)

    def test_elsewhere_it_does_nothing(self):
        found = []

        def elsewhere():
            with SignalBell() as bell:
                found.append(bell.has_rung())

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert found == [False]
