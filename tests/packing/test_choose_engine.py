"""Which engine is chosen, and what of it is taken for other packs."""

import dataclasses
import functools

import pytest
import torch
from torch import nn

import volano
from conftest import assert_same, classification
from volano.device import Device
from volano.errors import UsageError
from volano.packing import Member, Pack, choose_engine
from volano.packing.choose_engine import (
    NUM_STEPS,
    EngineChoice,
    is_loop_sooner,
    like_choice,
    num_alone,
    pays_to_compact,
    size_that_fits,
)
from volano.planner.time.compile_time import CompileTime


def chosen(engine, **seconds):
    return EngineChoice(engine=engine, seconds=seconds, refused={}, solo_seconds=0.001)


def members(make_task, count=4, **fields):
    fields = {
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "objective": classification,
        **fields,
    }
    return [Member(number=n, task=make_task(seed=n, data_seed=0, **fields)) for n in range(count)]


class Stateful(nn.Module):
    """Its loss is another each time that Python calls it: a trace would freeze it."""

    def __init__(self):
        super().__init__()
        self.inner, self.calls = nn.Linear(64, 10), [0]

    def forward(self, x):
        self.calls[0] += 1
        return self.inner(x) * self.calls[0]


def test_much_work_is_worth_a_look_and_little_is_not(make_task, monkeypatch):
    few = Pack(members(make_task), device="cpu", num_steps=NUM_STEPS)
    assert (few.engine, list(few.choice.seconds)) == ("loop", ["loop"])
    assert "too few to look for a faster engine" in few.choice.refused["lowered"]
    assert few.choice.solo_seconds is None  # one at a time is what it is
    many = Pack(members(make_task), device="cpu", num_steps=10_000)
    assert many.choice.seconds.keys() >= {"loop", "lowered"}
    assert many.engine == min(many.choice.seconds, key=many.choice.seconds.get)


def test_a_faster_engine_is_compared_with_steps_alone_as_they_are_fed(make_task, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    monkeypatch.setattr(choose_engine, "timed_steps", lambda engine, device, batches, **_: (
        [engine.step(batch) for batch in batches], 1e-9 if engine.name == "lowered" else 1.0
    ))  # fmt: skip
    given, fed = [], choose_engine.MemberAlone.seconds_of_next

    def watched(self, batches):
        made = list(batches)
        given.append((len(made), [batch.of_member for batch in made]))
        return fed(self, (batch for batch in made))

    monkeypatch.setattr(choose_engine.MemberAlone, "seconds_of_next", watched)
    made = members(make_task, duration="12st")
    pack = Pack(made, device="cpu", num_steps=10_000)
    assert pack.engine == "lowered"
    assert pack.choice.solo_seconds > 0
    assert given == [(8, [(0,)] * 8)]  # those after the first four, which were compared
    untimed = Pack(made, device="cpu", engine="lowered")
    for one in (pack, untimed):
        one.advance(dict.fromkeys(one.numbers, 3))
    for number, state in untimed.states().items():
        assert_same(pack.states()[number], state)


def test_nothing_is_tried_beyond_the_end_of_a_run(make_task, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    seen = []

    def schedule(progress):
        seen.append(progress)
        return 1.0

    Pack(members(make_task, duration="3st", schedule=schedule), device="cpu", num_steps=10_000)
    assert max(seen) < 1.0


@pytest.mark.parametrize(
    ("num_members", "num_steps", "expected"), [(2, 100, 8), (10, 100, 20), (64, 10_000, 64)]
)
def test_steps_alone_are_a_small_part_of_the_work(num_members, num_steps, expected):
    assert num_alone(num_members, num_steps) == expected


def test_an_engine_that_computes_something_else_is_struck(make_task, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    heard = []
    pack = Pack(
        members(make_task, model=Stateful), device="cpu", num_steps=10_000, on_notice=heard.append
    )
    assert pack.engine != "lowered"
    assert pack.choice.refused["lowered"] == "model.calls[0] changes with each pass"


def test_what_is_compiled_has_to_show_that_it_computes_the_same(make_task, monkeypatch):
    class Wrong(choose_engine.Stacked):
        name = "compiled"

        def step(self, batch):
            return super().step(batch) * 1.1

    monkeypatch.setitem(choose_engine.ENGINES, "compiled", Wrong)
    monkeypatch.setattr(choose_engine, "_COMPILED_UNTIL", 1e9)
    monkeypatch.setattr(choose_engine, "_COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)
    pack = Pack(members(make_task), device="cpu", num_steps=10_000)
    assert pack.engine != "compiled"
    assert "the loss of member 0 at step 0 is" in pack.choice.refused["compiled"]


def test_parts_that_weigh_nothing_count_nothing(make_task):
    def objective(model, batch):
        logits = model(batch[0])
        kept = (batch[1] == 0).float() * (not model.training) + float(model.training)
        losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
        hits = (logits.argmax(1) == batch[1]).float()
        return volano.Loss(
            total=(losses * kept).sum(),
            weight=kept.sum(),
            metrics={"accuracy": (hits * kept).sum() / kept.sum()},
        )

    def only(classes):  # evaluated in batches of 32: in some, or in all, nothing counts
        return torch.utils.data.TensorDataset(
            torch.rand(96, 64), torch.tensor(classes).repeat_interleave(32)
        )

    for valid in (only([0, 3, 0]), only([3, 4, 5])):
        made = members(make_task, objective=objective, valid=valid)
        loop, lowered = (Pack(made, device="cpu", engine=engine) for engine in ("loop", "lowered"))
        for number, expected in loop.evaluate().items():
            assert lowered.evaluate()[number] == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_a_model_that_no_fast_engine_takes_is_trained_in_turn_and_said_once(make_task, monkeypatch):
    monkeypatch.setattr(choose_engine, "_WORTH_TRACING", 0.0)

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 10)

        def forward(self, x):
            return self.inner(x) if x.sum().item() > 0 else self.inner(-x)

    heard = []
    first = Pack(
        members(make_task, model=Looks), device="cpu", num_steps=10_000, on_notice=heard.append
    )
    Pack(members(make_task, model=Looks, count=2), device="cpu", family=first.family,
    num_steps=10_000, on_notice=heard.append)  # fmt: skip
    assert first.engine == "loop"
    assert len([text for text in heard if "one after the other" in text]) == 1
    assert first.choice.is_refused


def test_packs_of_about_the_same_size_share_a_choice():
    choices = {16: chosen("lowered", loop=0.01, lowered=0.004), 1: chosen("loop", loop=0.001)}
    assert like_choice(choices, 9).engine == "lowered"
    assert like_choice(choices, 32).engine == "lowered"
    assert like_choice(choices, 7) is None
    assert like_choice(choices, 33) is None
    compiled = {16: chosen("compiled", loop=0.01, lowered=0.004, compiled=0.002)}
    assert like_choice(compiled, 12).engine == "lowered"  # another size would have to be compiled


def test_a_compiled_size_is_filled_where_that_is_faster():
    choices = {16: chosen("compiled", loop=0.016, lowered=0.008, compiled=0.004)}
    assert size_that_fits(choices, 9, 10**6) == 16
    assert size_that_fits(choices, 8, 10**6) is None  # the traced one takes as long for eight
    assert size_that_fits(choices, 17, 10**6) is None


def test_a_traced_size_is_filled_where_its_empty_slots_take_less_time_than_tracing(monkeypatch):
    monkeypatch.setattr(choose_engine, "processor_slowness", lambda: 1.0)
    timed = dataclasses.replace(chosen("lowered", loop=0.016, lowered=0.004), num_members=16)
    # Of 4 ms an eighth is saved by a program for twelve: half a second in a thousand steps.
    assert not pays_to_compact(timed, 16, 12, 900)
    assert pays_to_compact(timed, 16, 12, 1100)
    assert size_that_fits({16: timed}, 12, 900) == 16
    assert size_that_fits({16: timed}, 12, 1100) is None
    assert size_that_fits({16: timed}, 3, 100) is None  # three are sooner one by one


def test_survivors_of_a_short_rung_keep_their_program_and_change_by_no_bit(make_task, monkeypatch):
    made = members(make_task, count=4)
    pack, whole = (Pack(made, device="cpu", engine="lowered") for _ in range(2))
    timed = {"loop": 8.0, "lowered": 1e-4}
    pack.choice = EngineChoice(engine="lowered", seconds=timed, refused={}, num_members=4)
    for one in (pack, whole):
        one.advance(dict.fromkeys(one.numbers, 2))
    pack.keep([1, 2])
    assert pack.numbers == [1, 2]
    for one in (pack, whole):
        one.advance(dict.fromkeys(one.numbers, 6))
    assert len(pack._engine.solos) == 4
    for number, state in pack.states().items():
        assert_same(state, whole.states()[number])
    assert pack.evaluate() == {n: whole.evaluate()[n] for n in (1, 2)}


def test_an_engine_that_was_asked_for_says_what_it_does_not_take(make_task):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 10)

        def forward(self, x):
            return self.inner(x) if x.sum().item() > 0 else self.inner(-x)

    pack = Pack(members(make_task, model=Looks), device="cpu", engine="lowered")
    with pytest.raises(UsageError, match="Engine lowered does not take these tasks"):
        pack.advance(dict.fromkeys(pack.numbers, 1))


def test_members_of_several_structures_are_no_pack(make_task):
    one, other = members(make_task, count=2)
    other = dataclasses.replace(other, task=dataclasses.replace(other.task, batch_size=16))
    with pytest.raises(UsageError, match="have one structure; got .*batch_size: 32, 16"):
        Pack([one, other], device="cpu", engine="lowered")


def test_few_survivors_are_trained_one_by_one_where_that_is_sooner(make_task):
    timed = {"loop": 8.0, "lowered": 4.0, "compiled": 2.0}  # for eight
    for engine, most in (("lowered", 2), ("compiled", 1)):
        choice_of_eight = EngineChoice(engine=engine, seconds=timed, refused={}, num_members=8)
        assert [num for num in range(1, 9) if is_loop_sooner(choice_of_eight, num)] == list(
            range(1, most + 1)
        )
    assert not is_loop_sooner(
        EngineChoice(engine="each", seconds=timed, refused={}, num_members=8), 1
    )

    made = members(make_task, count=8)
    pack, whole = (Pack(made, device="cpu", engine="lowered") for _ in range(2))
    pack.choice = EngineChoice(engine="lowered", seconds=timed, refused={}, num_members=8)
    for one in (pack, whole):
        one.advance(dict.fromkeys(one.numbers, 5))
    pack.keep([3])
    for one in (pack, whole):
        one.advance(dict.fromkeys(one.numbers, 10))
    assert (pack.engine, pack.numbers) == ("loop", [3])
    mine, its = pack.states()[3]["model"], whole.states()[3]["model"]
    assert all(torch.allclose(mine[name], its[name], rtol=1e-4, atol=1e-6) for name in its)
    assert pack.losses()[3] == pytest.approx(whole.losses()[3], rel=1e-4)


def test_an_accelerator_compiles_a_program_for_longer_and_this_machine_as_it_did(monkeypatch):
    monkeypatch.setattr(choose_engine, "_COMPILE_SECONDS", 10.0)
    device = Device("cpu")
    CompileTime(device).note(10.0, 15.0)
    assert choose_engine.compile_seconds(device) == 15.0
    device.is_cpu = False
    assert choose_engine.compile_seconds(device) == 40.0 * CompileTime(device).factor
