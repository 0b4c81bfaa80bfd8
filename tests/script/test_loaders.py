"""Loaders under a plan: workers from outside, the same numbers."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from script.loops import Squares, plain_loop
from volano.script.apply import applied
from volano.script.plan import ScriptPlan

PERSISTENT = ScriptPlan(num_workers=1, persistent_workers=True)


@pytest.mark.parametrize("plan", [ScriptPlan(num_workers=2), PERSISTENT])
def test_losses_are_bitwise_those_without_over_several_epochs(plan):
    expected = plain_loop(epochs=3)
    with applied(plan) as result:
        assert plain_loop(epochs=3) == expected
    assert f"num_workers={plan.num_workers}" in result.deeds[0]
    assert plain_loop(epochs=3) == expected


class Recorded(Squares):
    """Says by the labels in which process an example was made."""

    def __getitem__(self, index):
        worker = torch.utils.data.get_worker_info()
        return super().__getitem__(index)[0] * 0 + self.gain, -1 if worker is None else worker.seed


def test_workers_live_on_between_epochs_unless_the_dataset_was_changed():
    loader = DataLoader(Recorded(), batch_size=4)
    with applied(PERSISTENT):
        first, second = ({*torch.cat([y for _, y in loader]).tolist()} for _ in range(2))
        assert first == second != {-1}  # one worker, with the seed that it was born with
        loader.dataset.gain = 2.0
        third = list(loader)
        assert {*torch.cat([y for _, y in third]).tolist()} != first
        assert all((x == 2.0).all() for x, _ in third)
    assert loader.num_workers == 0
    assert not loader.persistent_workers
    assert loader.prefetch_factor is None


def test_two_passes_at_a_time_are_two():
    loader = DataLoader(Squares(), batch_size=4)
    with applied(PERSISTENT):
        list(loader)
        pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) == 10
    assert all(torch.equal(one[0], other[0]) for one, other in pairs)


def test_a_loader_that_is_read_in_a_worker_has_none_itself(monkeypatch):
    expected = plain_loop(epochs=1)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with applied(PERSISTENT) as result:
        assert plain_loop(epochs=1) == expected
    assert result.notices == (
        "the loader of Squares: it is read in a worker, which may have none itself",
    )


class Stream(IterableDataset):
    """Examples that can only be iterated over."""

    def __iter__(self):
        return iter(range(100))


class Endless(torch.utils.data.Sampler):
    """A sampler that does not tell its length."""

    def __iter__(self):
        return iter(range(40))

    def __len__(self):
        raise NotImplementedError


def test_a_loader_of_unknown_length_is_treated_and_modules_are_not_looked_into():
    data = Squares()
    data.library = torch
    with applied(ScriptPlan(num_workers=1)) as result:
        assert sum(1 for _ in DataLoader(data, batch_size=8, sampler=Endless())) == 5
    assert "num_workers=1" in result.deeds[0]


def own_file(tmp_path):
    data = Squares()
    data.file = (tmp_path / "held").open("wb")
    return data


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: DataLoader(Squares(), num_workers=1), "the script gives it 1 workers"),
        (lambda _: DataLoader(Stream(), batch_size=4), "only be iterated"),
        (lambda _: DataLoader(Squares(8), batch_size=4), "2 batches are over"),
        (lambda path: DataLoader(own_file(path)), "holds an open file"),
        (lambda path: DataLoader(own_file(path), sampler=Endless()), "holds an open file"),
    ],
)
def test_loaders_that_have_to_stay_as_they_are(make, reason, tmp_path):
    loader = make(tmp_path)
    before = {**vars(loader)}
    with applied(PERSISTENT) as result:
        next(iter(loader))
        assert vars(loader) == before
    assert reason in result.notices[0]
    assert not result.deeds
    if hasattr(loader.dataset, "file"):
        loader.dataset.file.close()
