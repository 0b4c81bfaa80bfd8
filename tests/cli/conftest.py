"""The command line in this process, as tests call it."""

import pytest

from volano.cli import commands
from volano.cli.main import app, run


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """``command("train", ...)`` -> exit code, standard output, standard error; in a folder of the
    test's."""
    commands.register(app)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def volano(command):
    """``volano("train", ...)`` -> exit code, lines of standard output, text of standard error."""

    def call(*arguments):
        code, out, err = command(*arguments)
        return code, out.splitlines(), err

    return call
