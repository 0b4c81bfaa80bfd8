"""One compiled program for each member in turn."""

import pytest
import torch

from packing.structures import CONFIGS, Structure, plain_mlp, sgd
from volano import Plan
from volano.device import Device
from volano.packing.engines import compiled_in_turn
from volano.packing.member import Member, MemberState
from volano.packing.pack_feed import PackBatch
from volano.packing.refusal import NotPackable


class Single:
    """Stands for the compiled engine of one member."""

    def __init__(self, solos, family, plan, device):
        (self.solo,) = self.solos = solos

    def ready(self, batch):
        if batch.of(0)[0].sum() < 0:
            raise NotPackable("negative")
        self.seen = batch.of(0)[0]
        return self.run

    def run(self):
        self.solo.step += 1
        return self.seen.sum().view(1) + self.solo.number

    def states(self, slots):
        return [{"number": self.solo.number} for _ in slots]


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(compiled_in_turn, "CompiledStack", Single)
    tasks = Structure(model=plain_mlp, optimizer=sgd).tasks()
    plan, device = Plan.baseline("cpu"), Device("cpu")
    assert len(tasks) == len(CONFIGS)
    solos = [MemberState(Member(number=n, task=task), plan, device) for n, task in enumerate(tasks)]
    return compiled_in_turn.CompiledInTurn(solos, None, plan, device)


def test_members_step_in_turn_on_batches_of_their_own(engine):
    batch = PackBatch([(torch.ones(2),)], (0, 0, 0, 0))
    assert engine.step(batch).tolist() == [2.0, 3.0, 4.0, 5.0]
    seen = [single.seen for single in engine._engines]
    assert len({tensor.data_ptr() for tensor in seen}) == 4
    engine.keep([3, 1])
    assert [state["number"] for state in engine.states([0, 1])] == [3, 1]


def test_a_refusal_leaves_nobody_a_step_behind_another(engine):
    batch = PackBatch([(torch.ones(2),), (-torch.ones(2),)], (0, 0, 1, 0))
    with pytest.raises(NotPackable):
        engine.step(batch)
    assert [solo.step for solo in engine.solos] == [0, 0, 0, 0]
