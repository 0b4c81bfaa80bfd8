"""Chooses a classifier of texts: both are trained on what is not held back, in the time that there
is."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from volano.apps.application import Fitted
from volano.apps.targets.target import Target
from volano.apps.text.classify.encoder import MOST_FINE_TUNING_EPOCHS
from volano.apps.text.classify.model_spec import BAG, DECODER_HEAD, DEPTH, choose_context
from volano.apps.text.classify.read_head import ReadHead, reading_task
from volano.apps.text.classify.training import ClassifyTraining
from volano.apps.text.network import DecoderShape
from volano.apps.text.tokenizer import choose_vocab_size, train_tokenizer
from volano.plan import Plan
from volano.pretrained.heads import about_network
from volano.pretrained.recipe import choose_tune
from volano.pretrained.text_encoders import cut_in_words
from volano.pretrained.tuning import trainable_in_words
from volano.record.format import count_text, title_of
from volano.running.time_limit import TimeLimit
from volano.running.time_schedule import (
    PLANNING_SHARE,
    NetworkCosts,
    RunCosts,
    make_schedule,
    reserve_seconds,
    said_of_time,
)
from volano.task import Task
from volano.training import check_plan, run_trial

# Shares of the time left that the bag learns at most, that the decoder reads and that its head
# learns; what remains is for a second training, on everything, of the one that is kept.
_BAG_SHARE, _READ_SHARE, _HEAD_SHARE = 0.4, 0.4, 0.2
# With less, the head is not tried: a decoder that has read for a second knows nothing.
_LEAST_SECONDS = 4.0
_MOST_HEAD_EPOCHS, _MOST_READ_EPOCHS = 6, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tried:
    """A classifier that was trained on what is not held back: the steps of a training on
    everything, the seconds of one, and the figure on what is held back. ``head``: None of a bag.
    ``notices``: texts that a person should read."""

    head: ReadHead | None
    num_steps: int
    step: float
    figure: float
    notices: tuple[str, ...] = ()


def fit_into(application: ClassifyTraining, limit: TimeLimit) -> Fitted:
    """Trains a bag of n-grams, then in the time that is left a language model's head; the better on
    the texts held back is kept, the bag if they are equal. These trainings are too short to measure
    plans: the choices that need no measuring are taken."""
    begun = limit.left()
    task = application.bag_task(everything=False)
    chosen = limit.choose_plan(
        task, planning=limit.planning.preferring(workers=0), is_raced=False,
        planning_seconds=limit.planning_left(begun),
    )  # fmt: skip
    check_plan(task, chosen.plan)
    # Before the time that the trials take.
    limit.check(application.bag_task(everything=True), chosen.plan)
    tried = {BAG: _try_bag(application, chosen.plan, limit)}
    left = _left(limit) - 1.1 * tried[BAG].num_steps * tried[BAG].step
    head, reason = _try_head(application, chosen.plan, limit, left)
    if head is not None:
        tried[DECODER_HEAD] = head
    candidates = {name: float(f"{one.figure:.4g}") for name, one in tried.items()}
    best = tried[_better(candidates, application.target)]
    if best.head is not None:
        chosen = dataclasses.replace(chosen, plan=_head_plan(chosen.plan, limit.planning.pins))
    kept = application.spec_of(candidates, best.head)
    network = NetworkCosts(name=kept.kept, step=best.step, most_steps=best.num_steps)
    costs = RunCosts(
        spent=limit.seconds - limit.left(), networks=[network], writing=limit.writing,
        is_revised=limit.world_size == 1,
        planning=PLANNING_SHARE * limit.seconds, num_evaluations=0,
    )  # fmt: skip
    schedule = make_schedule(costs, limit.seconds)
    return Fitted(
        application=dataclasses.replace(application, kept=kept, head=best.head),
        chosen=chosen,
        num_steps=schedule.num_steps,
        reasons=(
            reason,
            _choice_in_words(application, kept.kept, candidates),
            *dict.fromkeys(said for one in tried.values() for said in one.notices),
            *limit.said,
            *said_of_time(schedule),
        ),
        length=limit.length_rule(schedule, network),
    )


def _choice_in_words(application: ClassifyTraining, kept: str, candidates: dict[str, float]) -> str:
    figures = ", ".join(f"{name} {figure:.4g}" for name, figure in candidates.items())
    return (
        f"kept: {kept}; {title_of(application.target.figure)} on {len(application.choice):,} "
        f"training texts held back to choose: {figures}"
    )


def _left(limit: TimeLimit) -> float:
    """The seconds that are left for trainings."""
    return limit.left() - reserve_seconds(limit.seconds) - limit.writing


def fit_encoder(
    application: ClassifyTraining, limit: TimeLimit, epochs: float | None = None
) -> Fitted:
    """Begins with the head that is solved on the frozen features of the training texts, chooses
    what is trained, and fits the number of steps to the time, or takes so many epochs."""
    encoder = application.encoder
    assert encoder is not None
    start, num_texts = application.begin(limit.planning.place), len(application.train)
    found = choose_tune(
        application.options.tune, num_examples=num_texts,
        num_classes=len(application.train.classes),
        pass_seconds=start.example_seconds * num_texts,
        seconds=limit.left() if epochs is None else None, epochs=epochs,
    )  # fmt: skip
    application = dataclasses.replace(application.with_options(tune=found.tune), start=start)
    num_steps = application.steps_in(epochs or MOST_FINE_TUNING_EPOCHS[found.tune])
    task = application.task(num_steps)
    chosen = limit.choose_plan(task, planning=limit.planning.preferring(workers=0), is_raced=False)
    check_plan(task, chosen.plan)
    limit.check(task, chosen.plan)
    if epochs is None:
        num_once = len(application.test) + (num_texts if chosen.plan.prefix == "cached" else 0)
        left = max(0.0, _left(limit) - start.example_seconds * num_once)
        num_steps = _affordable(limit, task, chosen.plan, left, most=num_steps)
    trainable = trainable_in_words(task, chosen.plan)
    told = f"{count_text(num_steps, 'step')} ({num_steps / application.steps_in(1.0):.1f} epochs)"
    reasons = (
        *about_network(encoder, application.train.classes),
        *cut_in_words(
            application.tokens.num_cut, num_texts, encoder.tokenizer.most_tokens
        ),
        f"{trainable}; {found.reason}", start.probe.in_words(), told,
    )  # fmt: skip
    return Fitted(application=application, chosen=chosen, num_steps=num_steps, reasons=reasons)


def _try_bag(application: ClassifyTraining, plan: Plan, limit: TimeLimit) -> _Tried:
    """Trains the bag on what is not held back, for a share of the time that is left."""
    task, whole = (application.bag_task(everything=everything) for everything in (False, True))
    num_steps = _affordable(limit, task, plan, _BAG_SHARE * _left(limit), most=task.num_steps)
    trial = run_trial(application.bag_task(everything=False, num_steps=num_steps), plan)
    return _Tried(
        head=None, num_steps=max(1, whole.num_steps * num_steps // task.num_steps),
        step=trial.seconds / num_steps, figure=trial.metrics[application.target.figure],
        notices=trial.notices,
    )  # fmt: skip


def _try_head(
    application: ClassifyTraining, plan: Plan, limit: TimeLimit, left: float
) -> tuple[_Tried | None, str]:
    """Trains the language model's head on what is not held back, in the seconds that are left; and
    says so."""
    if left < _LEAST_SECONDS:
        return None, f"{DECODER_HEAD}: not tried, {max(0.0, left):.0f} s left are too few"
    mark = time.perf_counter()
    texts = [application.train.texts[row] for row in application.fit_rows]
    tokenizer = train_tokenizer(texts, choose_vocab_size(sum(map(len, texts))))
    tokens = np.concatenate(list(tokenizer.encode_documents(texts)))
    context = choose_context(texts, tokenizer)
    if len(tokens) < 4 * context:
        return None, f"{DECODER_HEAD}: not tried, {len(tokens):,} tokens are too few"
    shape = DecoderShape(vocab_size=tokenizer.vocab_size, context=context, depth=DEPTH)
    left -= time.perf_counter() - mark
    num_bytes = sum(len(text) for text in application.train.texts)
    reading = functools.partial(
        reading_task, tokens, shape, num_bytes=num_bytes, seed=application.options.seed
    )
    read = reading(num_steps=1000)
    most = _MOST_READ_EPOCHS * len(tokens) // read.batch_size
    read_steps = _affordable(limit, read, plan, _READ_SHARE * left, most=most)
    read_trial = run_trial(reading(num_steps=read_steps), plan)
    state = read_trial.model.state_dict()
    weights = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    head = ReadHead(tokenizer=tokenizer, shape=shape, weights=weights)
    task = application.head_task(head, 1000, everything=False)
    plan = _head_plan(plan, limit.planning.pins)
    head_steps = _affordable(
        limit, task, plan, _HEAD_SHARE * left, most=_MOST_HEAD_EPOCHS * task.steps_per_epoch
    )
    trial = run_trial(application.head_task(head, head_steps, everything=False), plan)
    tried = _Tried(
        head=head, num_steps=head_steps, step=trial.seconds / head_steps,
        figure=trial.metrics[application.target.figure],
        notices=(*read_trial.notices, *trial.notices),
    )  # fmt: skip
    return tried, (
        f"{DECODER_HEAD}: depth {DEPTH}, read for {read_steps:,} steps, learned "
        f"{application.target.kind} for {head_steps:,}"
    )


def _better(candidates: Mapping[str, float], target: Target) -> str:
    """The one with the better figure; the bag, which comes first, if they are equal."""
    best = max if target.more_is_better else min
    return best(candidates, key=lambda name: candidates[name])


def _affordable(limit: TimeLimit, task: Task, plan: Plan, seconds: float, *, most: int) -> int:
    """Returns the steps for which the seconds are enough; a trial is one process's, whoever trains
    afterwards."""
    start = time.perf_counter()
    step = dataclasses.replace(limit, world_size=1).measure_step(task, plan).step
    return max(1, min(most, int((seconds - (time.perf_counter() - start)) / step)))


def _head_plan(plan: Plan, pins: Mapping[str, Any]) -> Plan:
    """The plan for tokens in tensors: they can stay where the arithmetic is, unless a pin says
    otherwise."""
    own = {"feed": "resident", "optimizer": "as_given"}
    return plan.pin(**{name: value for name, value in own.items() if pins.get(name) is None})
