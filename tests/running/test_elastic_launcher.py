"""Why ranks ended, in one sentence; tests/cli/test_ranks.py starts real ones."""

import signal
from types import SimpleNamespace

import pytest

from volano.running.elastic_launcher import _last_words, _reason


def failure(message=None, *, exitcode=1, timestamp=0):
    name = signal.Signals(-exitcode).name if exitcode < 0 else ""
    data = {} if message is None else {"message": message}
    return SimpleNamespace(
        exitcode=exitcode, timestamp=timestamp, error_file_data=data, signal_name=lambda: name
    )


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("ValueError: no\nand more", "ValueError: no"),
        ({"message": "ValueError: no", "extraInfo": {}}, "ValueError: no"),
        ("\n \n ValueError: no", " ValueError: no"),
        ("<NONE>", None),
        (None, None),
        ({}, None),
        ("", None),
    ],
)
def test_the_first_line_of_what_a_rank_raised(message, words):
    assert _last_words(failure(message)) == words


def test_the_first_to_fail_is_the_reason():
    failures = {0: failure("ValueError: later", timestamp=2), 1: failure("ValueError: sooner")}
    assert _reason(failures, 0) == "rank 1: ValueError: sooner"


def test_ranks_that_were_asked_to_end_are_a_consequence():
    failures = {
        0: failure(exitcode=-signal.SIGTERM, timestamp=0),
        1: failure(exitcode=-signal.SIGKILL, timestamp=5),
    }
    assert _reason(failures, 0) == "rank 1: ended by SIGKILL"


def test_restarts_and_exit_codes_are_told():
    assert _reason({3: failure(exitcode=7)}, 2) == "rank 3: exit code 7 (started again 2 times)"
