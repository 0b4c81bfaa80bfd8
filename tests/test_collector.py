"""The collector of reference cycles is put back as it was."""

import contextlib
import gc

import pytest

from volano.collector import collector_paused, leave_to_the_system


@pytest.mark.parametrize("is_on", [True, False])
def test_a_pause_ends(is_on):
    before = gc.isenabled()
    (gc.enable if is_on else gc.disable)()
    try:
        with contextlib.suppress(ImportError), collector_paused():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == is_on
    finally:
        (gc.enable if before else gc.disable)()


def test_what_lives_is_not_looked_through_again():
    before = gc.get_freeze_count()
    kept = [[] for _ in range(1000)]
    leave_to_the_system()
    try:
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        if not before:
            gc.unfreeze()
