"""Printing ends nothing."""

import errno
import io
import os
import subprocess
import sys

import pytest

from volano.terminal import unfailing
from volano.training.observe import StartInfo
from volano.training.progress import make_progress


class Broken(io.StringIO):
    """A stream of which every use raises."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error

    def isatty(self):
        raise self.error


ERRORS = [BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.ENOSPC, "full"), ValueError("closed")]


@pytest.mark.parametrize("stream", [None, *map(Broken, ERRORS)])
def test_what_cannot_be_printed_is_lost(stream):
    print("text", file=unfailing(stream), flush=True)
    assert not unfailing(stream).isatty()


def test_what_an_encoding_lacks_is_escaped():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("caf\xe9 \udcff", file=unfailing(file), flush=True)
    assert file.buffer.getvalue() == b"caf\\xe9 \\udcff\n"


def test_it_is_the_stream_in_all_else():
    file = io.StringIO()
    stream = unfailing(unfailing(file))
    assert stream.write("text") == 4
    assert stream.getvalue() == file.getvalue() == "text"
    assert stream.encoding is None


@pytest.mark.parametrize("stream", [None, Broken(OSError(errno.ENOSPC, "full"))])
def test_progress_on_such_a_stream(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    observer = make_progress()
    info = StartInfo(
        name="x", folder="x", first_step=0, num_steps=1, steps_per_epoch=1, batch_size=1,
        device="cpu", num_parameters=1,
    )  # fmt: skip
    observer.on_start(info)
    observer.on_notice("a notice")
    observer.on_end("finished")


def volano(script):
    """What a shell prints that has such a command; nothing of torch is loaded."""
    environment = {**os.environ, "V": f"{sys.executable} -m volano"}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ("$V --version 2>&- ; echo $?", "volano 0.1.0\n0\n"),
        ("$V --version >&- 2>&- ; echo $?", "0\n"),
        ("$V nonsense 2>/dev/full; echo $?", "2\n"),
        ("$V --version >/dev/full 2>/dev/null; echo $?", "1\n"),
    ],
)
def test_a_command_whose_streams_are_closed_or_full(script, printed):
    assert volano(script) == printed
