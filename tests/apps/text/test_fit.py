"""Depth, batch and number of steps of a language model that suit a time, with given figures."""

from types import SimpleNamespace

import pytest

from volano import Plan
from volano.apps.text import fit
from volano.apps.text.recipe import MOST_EPOCHS, choose_depth, choose_tokens_per_step
from volano.apps.text.training import shaped
from volano.planner import PlanRequest, PlanResult
from volano.running.time_limit import TimeLimit


@pytest.fixture
def limit(monkeypatch):
    """``limit(seconds, flops=...)``: all of these are left, and a step takes as long as so many
    operations a second make it."""

    def make(seconds, *, flops):
        def choose_plan(self, task, **options):
            return PlanResult(plan=Plan.baseline("cpu"))

        def measure_step(self, task, plan):
            shape = task.model().shape
            tokens = task.batch_size * shape.context
            muon = fit._MUON_TOKENS_A_CHANNEL * shape.width
            step = shape.flops_per_token * (tokens + muon) / flops
            return SimpleNamespace(step=step, startup=0.0)

        monkeypatch.setattr(TimeLimit, "left", lambda self: seconds)
        monkeypatch.setattr(TimeLimit, "choose_plan", choose_plan)
        monkeypatch.setattr(TimeLimit, "measure_step", measure_step)
        monkeypatch.setattr(fit, "_window_seconds", lambda *_: 0.0)
        return TimeLimit(planning=PlanRequest(device="cpu"), started=0.0, seconds=seconds)

    return make


def test_depth_and_batch_are_those_of_the_recipes_rules(small_text, limit):
    """What a run of so many operations would be given, nearly: the rules are asked at its end."""
    for seconds, flops in ((30.0, 2e9), (60.0, 1e10), (600.0, 3e10)):
        found = fit.fit_into(small_text, limit(seconds, flops=flops)).application
        operations = 0.88 * seconds * flops
        spec = found.spec
        wanted = choose_depth(
            flops=operations, num_bytes=spec.num_train_bytes, vocab_size=spec.vocab_size,
            context=spec.context,
        )  # fmt: skip
        assert wanted - 1 <= spec.depth <= wanted
        tokens = operations / spec.shape().flops_per_token
        most = choose_tokens_per_step(num_tokens=tokens, width=spec.shape().width, is_cpu=True)
        assert found.tokens_per_step <= most


def test_a_batch_is_halved_if_there_are_few_steps(small_text, limit):
    found = fit.fit_into(small_text, limit(20.0, flops=2e8)).application
    whole = shaped(small_text, PlanRequest(device="cpu").place, flops=0.0, num_tokens=1.0, depth=2)
    assert found.spec.depth == 2
    assert found.batch_size < whole.batch_size


def test_a_small_text_is_not_read_for_ever(small_text, limit):
    found = fit.fit_into(small_text, limit(1e6, flops=1e12))
    assert found.num_steps == found.application.steps_in(MOST_EPOCHS)
    assert f"at most {MOST_EPOCHS:g} epochs" in found.reasons[0]


def test_a_few_steps_are_begun_with_however_short_the_time_is(small_text, limit):
    found = fit.fit_into(small_text, limit(1.0, flops=1e6))
    assert found.num_steps == 6
    assert any("6 steps of the network of depth 2" in reason for reason in found.reasons)


def test_a_pinned_depth_and_batch_stand(small_text, limit):
    pinned = small_text.with_shape(depth=3, batch_size=2)
    found = fit.fit_into(pinned, limit(1e4, flops=1e10))
    assert (found.application.spec.depth, found.application.batch_size) == (3, 2)
