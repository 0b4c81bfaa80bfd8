"""Corrupt examples are replaced, listed, and too many stop a run."""

import pytest
import torch

from data.feed.test_feed import Corrupt, run
from volano.data import Fault, Fetcher, Order, Quarantine, check_readable, fault_notices
from volano.errors import DataError


class TestQuarantine:
    def test_corrupt_examples_are_replaced_and_listed_once(self):
        told = []
        quarantine = Quarantine(40, told.append)
        batches = run(Corrupt(), quarantine=quarantine)
        assert all(len(batch) == 8 for batch in batches)
        assert not Corrupt.broken & set(torch.cat(batches).tolist())
        assert sorted(told, key=lambda fault: fault.index) == [
            Fault(3, "file3.png", "OSError: truncated"),
            Fault(17, "file17.png", "OSError: truncated"),
        ]

    def test_too_many_stop_the_run(self):
        class Rotten(Corrupt):
            broken = frozenset(range(0, 40, 4))

        with pytest.raises(
            DataError,
            match=r"At most 10% .* may be corrupt; got 6 of .*file\d+.png: OSError: truncated",
        ):
            run(Rotten())

    def test_nothing_but_corrupt_examples_ends_at_once(self):
        class Hopeless(Corrupt):
            broken = frozenset(range(40))

        with pytest.raises(
            DataError, match="20 in a row were corrupt; got example .* OSError: truncated"
        ):
            run(Hopeless())


def test_a_small_set_stops_at_a_tenth_too():
    class Rotten(Corrupt):
        broken = frozenset(range(5))

        def __len__(self):
            return 8

    quarantine = Quarantine(8)
    fetcher = Fetcher(Rotten(), None, 0)
    found = [fetcher(key)[1] for key in Order(num_examples=8, batch_size=4, seed=0).keys(0, 2)]
    with pytest.raises(DataError, match="At most 10%"):
        quarantine.add([fault for faults in found for fault in faults], 8)


def test_the_first_unreadable_examples_are_named():
    faults = [Fault(number, f"{number}.txt", "broken") for number in range(5)]
    assert fault_notices([]) == []
    assert fault_notices(faults[:1], "unreadable") == ["unreadable: 0.txt: broken"]
    assert fault_notices(faults)[2:] == [
        "left out: 2.txt: broken",
        "2 more are listed in quarantine.jsonl",
    ]


def test_one_must_be_readable():
    check_readable(1, "texts", [])
    with pytest.raises(DataError, match=r"one of the texts must be readable; got none\."):
        check_readable(0, "texts", [])
    with pytest.raises(DataError, match="got none; the first: a.txt: broken"):
        check_readable(0, "texts", [Fault(0, "a.txt", "broken")])
