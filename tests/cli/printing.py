"""What commands print, for comparing."""

import contextlib
import io

import torch

from volano.cli import commands
from volano.cli.main import app, run
from volano.cli.show.explanation import print_explanation
from volano.planner import Explanation


def printed(record, width=100):
    file = io.StringIO()
    print_explanation(Explanation.from_json(record), file=file, width=width)
    return file.getvalue()


def squeezed(text):
    """Without line breaks and indentation: what wrapped is whole again."""
    return " ".join(text.split())


def trained(*arguments):
    """The lines of standard output and the text of standard error of ``volano train``."""
    commands.register(app)
    torch.set_num_threads(1)
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        assert run(["train", *map(str, arguments)]) == 0, err.getvalue()
    return out.getvalue().splitlines(), err.getvalue()
