"""Which plans are admitted, and why the others are not."""

import dataclasses

import pytest
import torch
from torch import nn

from planner.searching import PLAIN, make_task
from volano.device import Device
from volano.errors import PlanError
from volano.planner.search.candidates import RACED, admissible
from volano.planner.task_profile import profile_task


def space_of(task=None, *, pins=None, forbidden=None, world_size=1, **profile):
    task = make_task() if task is None else task
    usual = {"num_threads": 4, "bf16_speed": 2.0} | profile
    known = dataclasses.replace(profile_task(task, Device("cpu")), **usual)
    base = PLAIN.pin(**(pins or {}))
    return admissible(
        task, known, base, pins=pins or {}, forbidden=forbidden, world_size=world_size
    )


@pytest.fixture(autouse=True)
def bf16_units(monkeypatch):
    """Of the processor that these tests are about."""
    monkeypatch.setattr(Device, "has_bf16_units", True)


def image_net():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10)
    )


class Drawn:
    """A set whose examples are others each time, by a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator()

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.rand(64, generator=self.generator), index % 10


def reasons(space):
    return {(refusal.knob, refusal.value): refusal.reason for refusal in space.refused}


class TestTolerance:
    def test_exact_leaves_what_is_bitwise_the_same(self):
        space = space_of(make_task(tolerance="exact", model=image_net))
        assert {plan.semantics() for plan in space.plans()} == {"exact"}
        assert reasons(space)["optimizer", "fused"] == "the task's tolerance is 'exact'"
        assert reasons(space)["threads", 2] == "the task's tolerance is 'exact'"

    def test_rounding_leaves_fp32(self):
        space = space_of(make_task(tolerance="rounding"))
        assert space.options["precision"] == ("fp32",)
        assert space.options["optimizer"] == ("as_given", "fused")
        assert reasons(space)["precision", "bf16"] == "the task's tolerance is 'rounding'"

    def test_precision_admits_what_the_device_has(self):
        space = space_of()
        assert space.options["precision"] == ("fp32", "bf16")
        assert "computes in" in reasons(space)["precision", "tf32"]

    def test_a_type_that_a_small_product_shows_to_be_slow_is_not_raced(self):
        space = space_of(bf16_speed=0.3)
        assert space.options["precision"] == ("fp32",)
        assert "at 0.3 times the rate of fp32" in reasons(space)["precision", "bf16"]
        assert space_of(bf16_speed=0.9).options["precision"] == ("fp32", "bf16")

    def test_a_processor_without_units_for_bf16_races_none_of_it(self, monkeypatch):
        monkeypatch.setattr(Device, "has_bf16_units", False)
        space = space_of()
        assert space.options["precision"] == ("fp32",)
        assert "has no units for it" in reasons(space)["precision", "bf16"]
        # Whoever wants it has it.
        assert space_of(pins={"precision": "bf16"}).options["precision"] == ("bf16",)


class TestPinsAndForbidden:
    @pytest.mark.parametrize(
        "pins",
        [
            {"precision": "bf16"},
            {"optimizer": "as_given"},
            {"allocator": "system"},
            {"threads": 3},
            {"compile": True},
        ],
    )
    def test_a_pin_stands_in_every_candidate(self, pins):
        space = space_of(pins=pins)
        ((knob, value),) = pins.items()
        assert {getattr(plan, knob) for plan in [*space.plans(), space.safe]} == {value}
        others = [refusal for refusal in space.refused if refusal.knob == knob]
        assert others
        assert all(
            "pinned to" in refusal.reason or "computes in" in refusal.reason for refusal in others
        )

    def test_what_varies_from_run_to_run_is_no_candidate_of_a_deterministic_plan(self):
        space = space_of(pins={"deterministic": True})
        found = reasons(space)
        for varying in (("conv_benchmark", True), ("compile_mode", "max-autotune")):
            assert "equal runs may differ" in found[varying]
        assert all(plan.deterministic for plan in [*space.plans(), space.safe])

    def test_a_forbidden_value_appears_nowhere_but_among_the_refused(self):
        space = space_of(
            forbidden={"precision": ("bf16",), "optimizer": ("fused",), "allocator": ("system",)}
        )
        plans = [*space.plans(), space.safe, space.base]
        assert {plan.precision for plan in plans} == {"fp32"}
        assert {plan.optimizer for plan in plans} == {"as_given"}
        assert {plan.allocator for plan in plans} == {"keep"}
        for value in (("precision", "bf16"), ("optimizer", "fused"), ("allocator", "system")):
            assert reasons(space)[value] == "forbidden by you"

    def test_nothing_left(self):
        with pytest.raises(PlanError, match="forbidden: fp32, bf16"):
            space_of(forbidden={"precision": ("fp32", "bf16")})

    @pytest.mark.parametrize(
        "forbidden", [{"speed": (1,)}, {"precision": ("bf17",)}, {"threads": (0,)}]
    )
    def test_what_is_no_knob_or_no_value(self, forbidden):
        with pytest.raises(PlanError):
            space_of(forbidden=forbidden)


class TestEveryValueIsAccountedFor:
    @pytest.mark.parametrize("tolerance", ["exact", "rounding", "precision"])
    @pytest.mark.parametrize("model", [image_net, lambda: nn.Linear(64, 10)])
    def test_once(self, tolerance, model):
        space = space_of(make_task(model=model, tolerance=tolerance))
        known = {
            "allocator": {"system", "keep", "return"},
            "optimizer": {"as_given", "foreach", "fused"},
            "memory_format": {"contiguous", "channels_last"},
            "precision": {"fp32", "tf32", "bf16", "fp16"},
            "compile": {False, True},
            "threads": {None, 2, 1},
            "prefix": {"computed", "cached"},
            "compile_mode": {"whole", "blocks", "max-autotune"},
            "conv_benchmark": {False, True},
        }
        assert tuple(space.options) == RACED
        for knob, values in known.items():
            refused = [refusal.value for refusal in space.refused if refusal.knob == knob]
            assert sorted(map(str, [*space.options[knob], *refused])) == sorted(map(str, values))
        assert all(refusal.reason for refusal in space.refused)

    def test_base_is_the_first_plan_and_plain_eager(self):
        space = space_of()
        plans = list(space.plans())
        assert plans[0] == space.base == PLAIN
        assert len(set(plans)) == len(plans)

    def test_safe_needs_no_measuring(self):
        assert space_of().safe.changes(PLAIN).keys() <= {"allocator", "optimizer", "prefix"}

    def test_images_alone_have_a_memory_format(self):
        assert space_of(make_task(model=image_net)).options["memory_format"] == (
            "contiguous",
            "channels_last",
        )
        assert (
            reasons(space_of())["memory_format", "channels_last"]
            == "no parameter has four dimensions"
        )

    def test_an_optimizer_without_a_fused_kernel(self):
        space = space_of(make_task(optimizer=torch.optim.RMSprop))
        assert space.options["optimizer"] == ("as_given",)
        assert space.safe.optimizer == "as_given"


class TestSeveralRanks:
    def test_threads_stand(self):
        assert space_of(world_size=2).options["threads"] == (None,)

    def test_each_compiles_what_one_can_time(self):
        assert space_of(world_size=2).options["compile"] == (False, True)

    def test_what_they_exchange_within_a_pass_is_not_compiled(self):
        space = space_of(world_size=2, pins={"sharding": "full"})
        assert "parts of parameters are gathered" in reasons(space)["compile", True]
        normed = make_task(model=lambda: nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10)))
        assert space_of(normed).options["compile"] == (False, True)
        space = space_of(normed, world_size=2)
        assert space.options["compile"] == (False,)
        assert "statistics of batches are exchanged" in reasons(space)["compile", True]
        assert reasons(space)["compile_mode", "blocks"] == "nothing is compiled"


class Layer(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.linear, self.last = nn.Linear(64, width), nn.Linear(width, 64)

    def forward(self, x):
        return x + self.last(self.linear(x).relu())


class TestModesOfTheCompiler:
    def test_blocks_that_are_built_alike_are_compiled_once(self):
        deep = make_task(
            model=lambda: nn.Sequential(*[Layer() for _ in range(4)], nn.Linear(64, 10))
        )
        assert space_of(deep).options["compile_mode"] == ("whole", "blocks")
        unlike = make_task(model=lambda: nn.Sequential(Layer(), Layer(32), nn.Linear(64, 10)))
        space = space_of(unlike)
        assert reasons(space)["compile_mode", "blocks"] == "no blocks of the model are built alike"

    def test_what_cannot_win_is_not_tried(self):
        found = reasons(space_of(make_task(model=image_net)))
        assert (
            found["compile_mode", "max-autotune"] == "cpu has no kernels that could be timed for it"
        )
        assert found["conv_benchmark", True] == "cpu has no library that times its convolutions"

    def test_convolutions_of_one_shape_are_timed_where_a_library_does(self, monkeypatch):
        monkeypatch.setattr(Device, "can_benchmark_convolutions", True)
        monkeypatch.setattr(Device, "can_autotune_kernels", True)
        space = space_of(make_task(model=image_net))
        assert space.options["conv_benchmark"] == (False, True)
        assert space.options["compile_mode"] == ("whole", "max-autotune")
        assert reasons(space_of())["conv_benchmark", True] == "the model has no convolutions"

    def test_no_plan_has_a_mode_of_what_is_not_compiled(self):
        deep = make_task(model=lambda: nn.Sequential(Layer(), Layer(), nn.Linear(64, 10)))
        assert {p.compile for p in space_of(deep).plans() if p.compile_mode == "blocks"} == {True}

    def test_pinned_threads_stand(self):
        assert space_of(world_size=2, pins={"threads": 3}).options["threads"] == (3,)


def on_frozen():
    trunk = nn.Sequential(nn.Linear(64, 2048), nn.Linear(2048, 2048), nn.Linear(2048, 16))
    return nn.Sequential(trunk.requires_grad_(False), nn.Linear(16, 10))


class TestFrozenPrefix:
    def test_it_is_kept_if_examples_come_twice(self):
        space = space_of(make_task(model=on_frozen, duration="2ep"))
        assert space.options["prefix"] == ("computed", "cached")
        assert space.safe.prefix == "cached"
        assert space.base.prefix == "computed"

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"duration": "1ep"}, "no example comes twice"),
            ({"model": image_net}, "no layer of the model is frozen"),
            ({"augment": lambda batch, _: batch}, "`augment` makes other examples in each epoch"),
            ({"data": Drawn()}, "the data makes other examples in each epoch"),
            ({"tolerance": "exact"}, "the task's tolerance is 'exact'"),
        ],
    )
    def test_why_it_is_not(self, fields, reason):
        space = space_of(make_task(**{"model": on_frozen, "duration": "2ep", **fields}))
        assert space.options["prefix"] == ("computed",)
        assert reasons(space)["prefix", "cached"] == reason

    def test_several_ranks_and_little_room(self):
        task = make_task(model=on_frozen, duration="2ep")
        several = space_of(task, world_size=2)
        assert "each of several ranks has other examples" in reasons(several)["prefix", "cached"]
        facts = dataclasses.replace(profile_task(task, Device("cpu")).prefix, row_bytes=2.0**50)
        assert (
            "MiB that there are for it" in reasons(space_of(task, prefix=facts))["prefix", "cached"]
        )
