"""The command as a process: signals while it imports what it needs."""

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, types
from volano.cli import entry
from volano.cli.entry import main

class Finder:  # the import of typer is interrupted, and the import machinery changes the exception
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            try:
                os.kill(os.getpid(), {number})
            except KeyboardInterrupt:
                if {is_changed}:
                    raise ImportError("half of it")
                raise

# The tests themselves may run under nohup, which has SIGHUP ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.meta_path.insert(0, Finder())
sys.argv = ["volano", "doctor", "--json"]
main()
"""


@pytest.mark.parametrize("is_changed", [False, True])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_import_that_is_interrupted(name, is_changed):
    code = CODE.format(number=int(getattr(signal, name)), is_changed=is_changed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("interrupted before the end; ")
    assert done.stdout.startswith('{"error": "interrupted')
