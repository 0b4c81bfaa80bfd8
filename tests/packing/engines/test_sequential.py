"""A pack against the same tasks trained alone."""

import functools
import math

import pytest
import torch

import volano
from conftest import classification_with_accuracy, make_mlp
from volano.errors import UsageError
from volano.packing import Member, Pack


@pytest.fixture
def tasks(make_task):
    return [
        make_task(
            model=functools.partial(make_mlp, dropout=0.1 * number),
            objective=classification_with_accuracy,
            optimizer=functools.partial(
                torch.optim.AdamW, lr=10.0 ** -(2 + number), weight_decay=0.01 * number
            ),
            schedule=volano.cosine(warmup=0.1 * number),
            clip_norm=None if number == 0 else 0.5 * number,
            seed=number,
            data_seed=None if number == 2 else 7,
            duration="40st",
        )
        for number in range(3)
    ]


def test_members_learn_what_they_learn_alone(tasks, quiet, tmp_path):
    pack = Pack(
        [Member(number=10 + k, task=task) for k, task in enumerate(tasks)],
        device="cpu",
        engine="loop",
    )
    pack.advance(dict.fromkeys(pack.numbers, 40))
    evaluations, states = pack.evaluate(), pack.states()
    for k, task in enumerate(tasks):
        plan = volano.Plan.baseline().pin(optimizer="fused")
        run = volano.train(task, plan=plan, out=tmp_path / str(k), observer=quiet)
        for name, tensor in run.model.state_dict().items():
            assert torch.equal(tensor, states[10 + k]["model"][name])
        assert evaluations[10 + k] == {
            name: run.metrics[f"valid_{name}"] for name in ("loss", "accuracy")
        }


def test_a_member_goes_on_from_its_state_among_others(tasks):
    members = [Member(number=k, task=task) for k, task in enumerate(tasks)]
    whole, first = Pack(members, engine="loop"), Pack(members, engine="loop")
    whole.advance(dict.fromkeys(range(3), 40))
    first.advance(dict.fromkeys(range(3), 15))
    states = first.states()
    second = Pack([Member(number=k, task=tasks[k], state=states[k]) for k in (2, 0)], engine="loop")
    second.advance({2: 40, 0: 40})
    for k in (0, 2):
        for name, tensor in second.states()[k]["model"].items():
            assert torch.equal(tensor, whole.states()[k]["model"][name])


def test_who_stays_does_not_notice_who_leaves(tasks):
    members = [Member(number=k, task=task) for k, task in enumerate(tasks)]
    all_of_them, some = Pack(members, engine="loop"), Pack(members, engine="loop")
    for pack in (all_of_them, some):
        pack.advance(dict.fromkeys(range(3), 10))
    some.keep([1, 2])
    assert some.numbers == [1, 2]
    for pack in (all_of_them, some):
        pack.advance(dict.fromkeys(pack.numbers, 20))
    for k in (1, 2):
        assert all_of_them.evaluate()[k] == some.evaluate()[k]


def test_losses_are_means_since_the_last_call(tasks):
    pack = Pack([Member(number=0, task=tasks[0])], engine="loop")
    assert math.isnan(pack.losses()[0])
    pack.advance({0: 1})
    first = pack.losses()[0]
    pack.advance({0: 2})
    second = pack.losses()[0]
    again = Pack([Member(number=0, task=tasks[0])], engine="loop")
    again.advance({0: 2})
    assert again.losses()[0] == pytest.approx((first + second) / 2)


def test_members_of_a_pack_go_forward_together(tasks):
    pack = Pack([Member(number=k, task=task) for k, task in enumerate(tasks)], engine="loop")
    with pytest.raises(UsageError, match="go forward by the same number of steps"):
        pack.advance({0: 1, 1: 2, 2: 1})
    with pytest.raises(UsageError, match="must be members of the pack"):
        pack.keep([])
    with pytest.raises(UsageError, match="a number of its own"):
        Pack([Member(number=0, task=tasks[0])] * 2)
