"""The guard lets honest plans pass and strikes those that compute something else."""

import functools

import pytest
import torch
from torch import nn

from conftest import classification, make_mlp, runs_in_bf16
from planner import faults
from volano import Plan
from volano.planner.parity.check import check_parity
from volano.planner.parity.directional_derivative import slope_ratio
from volano.planner.parity.reference import Reference

BASELINE = Plan.baseline()
# torch's compiler uses what torch deprecates.
COMPILES = (pytest.mark.compiles, pytest.mark.filterwarnings("ignore::DeprecationWarning"))


def conv_net() -> nn.Module:
    """Convolutions with BatchNorm, for digits of 8 x 8 pixels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


class Transformer(nn.Module):
    """Reads a digit's 8 rows as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x.unflatten(1, (8, 8)))).mean(1))


class Recurrent(nn.Module):
    """Reads a digit's 8 rows one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 32, 2, batch_first=True, dropout=0.2)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.cells(x.unflatten(1, (8, 8)))[0][:, -1])


class TwoDropouts(nn.Module):
    """As in the report of pytorch#190758; as layers, which can be switched off, or as functions,
    which cannot."""

    def __init__(self, *, as_layers: bool) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.drop = (
            nn.Dropout(0.5) if as_layers else functools.partial(nn.functional.dropout, p=0.5)
        )

    def forward(self, x):
        x = self.drop(torch.relu(self.one(x)))
        return self.head(self.drop(torch.relu(self.two(x))))


NETS = {
    "mlp": make_mlp,
    "mlp with dropout": functools.partial(make_mlp, dropout=0.5),
    "conv": conv_net,
    "transformer": Transformer,
    "lstm": Recurrent,
}
HONEST = {
    "baseline": BASELINE,
    "fused": BASELINE.pin(optimizer="fused"),
    "channels_last": BASELINE.pin(memory_format="channels_last"),
    "bf16": BASELINE.pin(precision="bf16"),
    "bf16 and more": BASELINE.pin(
        precision="bf16", memory_format="channels_last", optimizer="foreach"
    ),
    "micro-batches": BASELINE.pin(micro_batch=7),
    "bf16 in micro-batches": BASELINE.pin(precision="bf16", micro_batch=16),
}


@pytest.mark.parametrize(
    ("net", "optimizer"),
    [
        *((net, torch.optim.AdamW) for net in NETS),
        *((net, torch.optim.SGD) for net in ("mlp with dropout", "conv")),
    ],
)
def test_honest_plans_pass(make_task, net, optimizer):
    task = make_task(
        model=NETS[net], optimizer=functools.partial(optimizer, lr=0.01), clip_norm=1.0
    )
    reference = Reference(task)
    for name, plan in HONEST.items():
        if net == "conv" and plan.micro_batch is not None:
            continue
        if plan.precision == "bf16" and not runs_in_bf16(task.model(), torch.rand(32, 64)):
            continue
        found = check_parity(task, plan, reference=reference)
        assert found.passed, (name, found.reason, found.figures)
    assert reference.why_not_float64 is None


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"precision": "bf16"},
        {"micro_batch": 7, "optimizer": "fused"},
        {"offload": "all"},
        {"offload": "activations", "precision": "bf16", "micro_batch": 16},
    ],
    ids=str,
)
def test_recomputed_blocks_pass_bitwise(make_task, knobs):
    task = make_task(model=Transformer, optimizer=functools.partial(torch.optim.AdamW, lr=0.01))
    found = check_parity(task, BASELINE.pin(recompute="blocks", **knobs))
    assert found.passed, found
    assert found.figures["bitwise_different"] == 0
    assert found.figures["slope_ratio"] == pytest.approx(
        1, abs=0.1 if "precision" in knobs else 0.02
    )


@pytest.mark.slow
@pytest.mark.compiles
# Torch's compiler uses what torch deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("net", NETS)
def test_honest_compiled_plans_pass(make_task, net):
    task = make_task(model=NETS[net], optimizer=functools.partial(torch.optim.AdamW, lr=0.01))
    reference = Reference(task)
    for knobs in (
        {},
        {"precision": "bf16"},
        {"precision": "bf16", "memory_format": "channels_last"},
    ):
        if knobs and not runs_in_bf16(task.model(), torch.rand(32, 64)):
            continue
        found = check_parity(task, BASELINE.pin(compile=True, **knobs), reference=reference)
        assert found.passed, (knobs, found)


class Amplifying(nn.Module):
    """BatchNorm over features that are constant up to fp32's rounding, which it blows up: eager
    PyTorch's own gradient has little to do with that in float64."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64, eps=1e-14)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(3))
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.blocks(self.norm(x * 1e-7 + 0.7)))


def test_what_is_bitwise_eager_passes_however_far_rounding_goes(make_task):
    task = make_task(model=Amplifying)
    reference = Reference(task)
    same = check_parity(task, BASELINE.pin(recompute="blocks"), reference=reference)
    assert same.figures["eager_error"] > 0.5, same.figures
    assert same.passed, same.reason
    assert not check_parity(task, BASELINE.pin(precision="bf16"), reference=reference).passed


class RoundsInChannelsLast(nn.Module):
    """A network whose first layer's gradient is off by ``off`` of itself in channels_last."""

    def __init__(self, off, *, everywhere=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(128, 10)
        self.off, self.everywhere = off, everywhere

    def forward(self, x):
        x = torch.relu(self.first(x.view(-1, 1, 8, 8)))
        if not self.second.weight.is_contiguous() and (self.everywhere or x.dtype == torch.float32):
            x = x + (x - x.detach()) * self.off
        return self.head(self.second(x).flatten(1))


@pytest.mark.parametrize(
    ("off", "everywhere", "passes"), [(4e-3, False, True), (4e-3, True, False), (0.1, False, False)]
)
def test_more_rounding_in_channels_last_passes_if_float64_says_that_it_is_rounding(
    make_task, off, everywhere, passes
):
    task = make_task(model=functools.partial(RoundsInChannelsLast, off, everywhere=everywhere))
    found = check_parity(task, BASELINE.pin(memory_format="channels_last"))
    assert found.passed == passes, found
    assert ("the same in float64" in found.reason) == passes


class TestStruck:
    def test_a_split_batch_of_batchnorm(self, make_task):
        found = check_parity(make_task(model=conv_net), BASELINE.pin(micro_batch=16))
        assert not found.passed
        assert "couples the examples of a batch" in found.reason
        assert found.figures["split_difference"] > 1e-3

    @pytest.mark.parametrize(
        ("happens", "knobs"),
        [
            (faults.in_bf16, {"precision": "bf16"}),
            (faults.in_bf16, {"precision": "bf16", "micro_batch": 8, "optimizer": "fused"}),
            (faults.in_parts, {"micro_batch": 16}),
            pytest.param(faults.compiled, {"compile": True}, marks=COMPILES),
            pytest.param(
                faults.compiled_in_bf16, {"compile": True, "precision": "bf16"}, marks=COMPILES
            ),
        ],
    )
    def test_a_wrong_gradient(self, make_task, happens, knobs):
        task = make_task(model=functools.partial(faults.WrongGradient, happens))
        reference = Reference(task)
        assert check_parity(task, BASELINE, reference=reference).passed
        found = check_parity(task, BASELINE.pin(**knobs), reference=reference)
        assert not found.passed
        if "micro_batch" not in knobs:
            assert "the gradient is off by" in found.reason
            assert found.figures["error"] > 0.05

    @pytest.mark.parametrize("dropout", [0.1, 0.5])
    def test_dropout_recomputed_with_other_draws(self, make_task, monkeypatch, dropout):
        task = make_task(model=functools.partial(make_mlp, dropout=dropout))
        reference = Reference(task)
        plan = BASELINE.pin(recompute="blocks")
        monkeypatch.setattr("volano.planner.parity.reference.Session", faults.OtherDropout)
        found = check_parity(task, plan, reference=reference)
        assert not found.passed
        assert "recompute must change no bit, and changes" in found.reason
        # Nor does it need a twin to be found out.
        monkeypatch.setattr(
            "volano.planner.parity.directional_derivative.Session", faults.OtherDropout
        )
        with reference.kept(plan):
            assert abs(slope_ratio(reference.probe_batch, plan) - 1) > 0.02
            assert abs(slope_ratio(reference.probe_batch, BASELINE) - 1) < 0.01

    @pytest.mark.compiles
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize(
        "as_layers",
        [
            pytest.param(True, id="layers"),
            # What it shows as well, a gradient that is off, is shown by wrong gradients above.
            pytest.param(False, id="functions", marks=pytest.mark.slow),
        ],
    )
    def test_dropout_recomputed_by_the_partitioner(self, make_task, as_layers):
        """pytorch#190758: under a small memory budget the backward pass draws dropout anew."""
        task = make_task(model=functools.partial(TwoDropouts, as_layers=as_layers))
        reference = Reference(task)
        plan = BASELINE.pin(compile=True)
        found = check_parity(task, plan, reference=reference)
        assert found.passed, found
        assert found.figures["slope_ratio"] == pytest.approx(1, abs=0.02)
        torch._dynamo.reset()
        with torch._functorch.config.patch(activation_memory_budget=0.0):
            found = check_parity(task, plan, reference=reference)
        assert not found.passed
        expected = (
            "forward and backward pass drew different ones"
            if as_layers
            else "the gradient is off by"
        )
        assert expected in found.reason

    @pytest.mark.slow
    @pytest.mark.compiles
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_fault_of_the_compilers_own(self, make_task):
        task = make_task(model=faults.GlobalMaximum)
        reference = Reference(task)
        assert check_parity(task, BASELINE.pin(precision="bf16"), reference=reference).passed
        assert check_parity(task, BASELINE.pin(compile=True), reference=reference).passed
        plan = BASELINE.pin(compile=True, precision="bf16")
        with torch._inductor.config.patch(emulate_precision_casts=True):
            assert check_parity(task, plan, reference=reference).passed
        torch._dynamo.reset()
        found = check_parity(task, plan, reference=reference)
        assert not found.passed
        assert "2 of 4 gradients are not finite in bf16, first that of conv.weight" in found.reason

    def test_a_precision_that_overflows(self, make_task):
        task = make_task(model=faults.Overflowing)
        reference = Reference(task)
        assert check_parity(task, BASELINE, reference=reference).passed
        found = check_parity(task, BASELINE.pin(precision="bf16"), reference=reference)
        assert not found.passed
        assert found.reason.startswith("the loss is nan in bf16, and ")

    def test_a_gradient_that_overflows_alone(self, make_task):
        class Steep(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(64, 32), nn.Linear(32, 10)

            def forward(self, x):
                hidden = self.first(x)
                if torch.is_autocast_enabled("cpu"):
                    hidden.register_hook(
                        lambda gradient: (gradient.half() * 1e9).to(gradient.dtype)
                    )
                return self.second(hidden)

        found = check_parity(make_task(model=Steep), BASELINE.pin(precision="bf16"))
        assert not found.passed
        assert found.figures["gradients_not_finite"] > 0
        assert "gradients are not finite in bf16, first that of first.weight" in found.reason

    @pytest.mark.parametrize(
        ("happens", "passes"), [(faults.in_bf16, False), (faults.compiled, True)]
    )
    def test_a_teacher_that_moves_twice(self, make_task, happens, passes):
        """At the start it is its student, so that the gradient is the right one."""

        class Followed(nn.Module):
            def __init__(self):
                super().__init__()
                self.student, self.teacher = nn.Linear(64, 10), nn.Linear(64, 10)
                self.teacher.load_state_dict(self.student.state_dict())
                self.teacher.requires_grad_(False)

            def forward(self, x):
                with torch.no_grad():
                    for _ in range(2 if happens(x) else 1):
                        self.teacher.weight.lerp_(self.student.weight, 0.001)
                return self.student(x) + 0.01 * self.teacher(x)

        found = check_parity(make_task(model=Followed), BASELINE.pin(precision="bf16"))
        assert found.passed == passes, found
        if not passes:
            assert (
                "parameters without gradient have moved otherwise after the third step"
                in found.reason
            )

    def test_weights_that_drift(self, make_task):
        class Drifting(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.passes = nn.Linear(64, 32), nn.Linear(32, 10), 0

            def forward(self, x):
                hidden = torch.relu(self.first(x))
                self.passes += 1
                if len(x) == 16 and self.passes % 2 == 0:
                    self.first.weight.data.add_(3e-4)
                return self.second(hidden)

        optimizer = functools.partial(torch.optim.AdamW, lr=0.01)
        found = check_parity(
            make_task(model=Drifting, optimizer=optimizer), BASELINE.pin(micro_batch=16)
        )
        assert not found.passed
        assert "the weights' change after the first step has cosine 0.99" in found.reason

    def test_a_step_that_fails_says_why(self, make_task):
        def objective(model, batch):
            if torch.is_autocast_enabled("cpu"):
                raise ValueError("not in bf16")
            return classification(model, batch)

        found = check_parity(make_task(objective=objective), BASELINE.pin(precision="bf16"))
        assert not found.passed
        assert found.reason == "a step fails with ValueError: not in bf16"

    def test_beyond_the_tolerance(self, make_task):
        found = check_parity(make_task(tolerance="rounding"), BASELINE.pin(precision="bf16"))
        assert not found.passed
        assert "the task's tolerance, 'rounding'" in found.reason
