"""How the minutes of a video run are shared out, and which network they choose."""

import dataclasses
import types

import pytest
import torch

from volano.apps.application import TimeLimit
from volano.apps.video import fit
from volano.apps.video.application import VideoApplication
from volano.apps.video.options import VideoOptions
from volano.apps.video.training import NUM_GENERATED
from volano.device import Device
from volano.plan import Plan
from volano.planner import PlanRequest


@pytest.fixture(scope="module")
def application():
    return VideoApplication.read(VideoOptions())


def costs(scale):
    return fit._Costs(
        step=0.1 * scale,
        startup=0.0,
        answer=0.003 * scale,
        sampling_step=0.003 * scale,
        feature_step=0.02 * scale,
    )


class TestEffort:
    def test_figures_take_a_stated_share_at_most(self):
        for scale in (0.1, 1, 2, 5):
            for budget in (5, 60, 180, 3600):
                effort = fit._effort(costs(scale), budget)
                assert effort in (0.0, 1.0) or 0.25 <= effort < 1
                assert effort * fit._figures_seconds(costs(scale)) <= 0.15 * budget + 1e-9

    def test_three_minutes_are_enough_for_all_and_seconds_for_none(self, application):
        assert fit._effort(costs(1), 180) == 1.0
        assert fit._effort(costs(1), 5) == 0.0
        assert fit._with_effort(application, 0.5).options.num_generated == NUM_GENERATED // 2
        assert fit._with_effort(application, 0.0).options.feature_steps == 0

    def test_what_is_left_out_is_said(self):
        assert fit._said_of(1.0) == []
        assert "64 instead of 128" in fit._said_of(0.5)[0]
        assert "too short" in fit._said_of(0.0)[0]


class TestNetwork:
    @pytest.fixture
    def accelerator(self):
        return types.SimpleNamespace(is_cpu=False)

    def test_on_the_cpu(self, application):
        chosen, reason = application.with_network_for(Device("cpu"), 10**6)
        assert chosen.spec.network == "unet"
        assert reason == "network=unet: on the CPU it learns motion soonest"

    @pytest.mark.parametrize(("steps", "network"), [(9000, "unet"), (10_000, "transformer")])
    def test_on_an_accelerator_by_the_clips_seen(self, application, accelerator, steps, network):
        chosen, reason = application.with_network_for(accelerator, steps)
        assert chosen.spec.network == network
        assert f"network={network}: {steps * 32:,} clips" in reason

    def test_as_asked(self, accelerator):
        asked = VideoApplication.read(VideoOptions(network="transformer"))
        assert asked.with_network_for(accelerator, 1)[1] == "network=transformer: as asked"


class TestTask:
    def test_it_is_made_again_from_its_resolved_dials(self, application):
        again = VideoApplication.read(VideoOptions(**application.options.to_json()))
        assert again.spec == application.spec
        assert torch.equal(again.task(5).data.tree[0], application.task(5).data.tree[0])

    def test_the_average_spans_a_twentieth_of_the_run(self, application):
        assert application.task(1000).ema_decay == pytest.approx(1 - 1 / 50)
        assert application.task(10).ema_decay == 0.5
        assert application.task(10**6).ema_decay == 0.9999


class TestCosts:
    @pytest.mark.parametrize(("classes", "times"), [((), 1), (("left", "right"), 2)])
    def test_what_is_timed_is_what_will_be_run(self, application, monkeypatch, classes, times):
        """Steps of making clips ask the network twice where a class guides them; predictions ask it
        once."""
        clock = types.SimpleNamespace(now=0.0)
        monkeypatch.setattr(fit, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
        measured = types.SimpleNamespace(step=1.0, startup=0.0)
        monkeypatch.setattr(TimeLimit, "measure_step", lambda *a, **k: measured)
        monkeypatch.setattr(fit, "train_feature_net", lambda *a, **k: None)
        spec = dataclasses.replace(
            application.spec, classes=classes, class_shares=(0.5, 0.5)[: len(classes)]
        )

        def generate(model, spec, device, *, count, sampling, **others):
            is_guided = bool(spec.classes) and sampling.guidance != 1.0
            clock.now += count * sampling.steps * (2 if is_guided else 1)

        monkeypatch.setattr(fit, "generate_clips", generate)
        some = dataclasses.replace(application, spec=spec)
        found = fit._measure(
            some, Plan.baseline("cpu"), TimeLimit(planning=PlanRequest(), started=0.0, seconds=60.0)
        )
        assert (found.answer, found.sampling_step) == (1.0, times)
        assert fit._figures_seconds(found) == NUM_GENERATED * 20 * times
