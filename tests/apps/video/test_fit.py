"""How the minutes of a video run are shared out, and which network they choose."""

import dataclasses
import types

import pytest
import torch

from volano.apps.video import fit
from volano.apps.video.application import VideoApplication
from volano.apps.video.options import VideoOptions
from volano.apps.video.scoring.figures import NUM_SHOWN
from volano.apps.video.training import NUM_GENERATED, NUM_VALID
from volano.device import Device
from volano.plan import Plan
from volano.planner import PlanRequest, PlanResult
from volano.running.fit_time import EvaluationCosts
from volano.running.time_limit import TimeLimit


@pytest.fixture(scope="module")
def application():
    return VideoApplication.read(VideoOptions())


@pytest.fixture
def limit(monkeypatch):
    """``limit(seconds, step=...)``: all of these are left, and a step of 32 clips takes so
    long."""

    def make(seconds, *, step, costs=None, **options):
        def measure_step(self, task, plan):
            return types.SimpleNamespace(step=step * task.batch_size / 32, startup=0.0)

        plan = PlanResult(plan=Plan.baseline("cpu"))
        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", lambda *_, **__: plan)
        monkeypatch.setattr(TimeLimit, "measure_step", measure_step)
        given = costs or EvaluationCosts()
        monkeypatch.setattr(fit, "_evaluation_costs", lambda *_: given)
        return TimeLimit(planning=PlanRequest(device="cpu"), started=0.0, seconds=seconds)

    return make


class TestTime:
    def test_a_batch_is_halved_if_there_are_few_steps(self, application, limit):
        for step, batch in ((0.1, None), (0.5, 16), (2.0, 8)):
            found = fit.fit_into(application, limit(100.0, step=step)).application
            assert found.options.batch_size == batch
        asked = application.with_options(batch_size=24)
        assert fit.fit_into(asked, limit(100.0, step=9.0)).application.options.batch_size == 24

    def test_the_figures_take_their_share_or_say_little_and_are_left_out(self, application, limit):
        costs = EvaluationCosts(test=1.0, more=20.0)
        for seconds, generated in ((600.0, 128), (150.0, 70), (50.0, 0)):
            found = fit.fit_into(application, limit(seconds, step=0.1, costs=costs))
            options = found.application.options
            assert options.num_generated == generated
            assert (options.feature_steps == 0) == (generated == 0)
            said = [reason for reason in found.reasons if "distances of generated" in reason]
            assert len(said) == (generated < 128)

    def test_the_run_looks_at_its_steps_again(self, application, limit):
        found = fit.fit_into(application, limit(100.0, step=0.1))
        assert found.length.num_steps(found.length.after_steps, 0.2) < found.num_steps
        assert f"{found.num_steps * 32:,} clips seen" in found.reasons[1]


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
        monkeypatch.setattr(fit, "train_feature_net", lambda *a, **k: None)
        spec = dataclasses.replace(
            application.spec, classes=classes, class_shares=(0.5, 0.5)[: len(classes)]
        )

        def generate(model, spec, device, *, count, sampling, **others):
            is_guided = bool(spec.classes) and sampling.guidance != 1.0
            clock.now += count * sampling.steps * (2 if is_guided else 1)

        monkeypatch.setattr(fit, "generate_clips", generate)
        some = dataclasses.replace(application, spec=spec)
        found = fit._evaluation_costs(some, Plan.baseline("cpu"))
        num_test = len(application.sets.test)
        assert found.evaluation == min(NUM_VALID, num_test)
        assert found.test == num_test + NUM_SHOWN * 20 * times
        assert found.more == (NUM_GENERATED - NUM_SHOWN) * 20 * times
