"""From a text and options to a Task."""

from types import SimpleNamespace

import pytest

from volano.apps.text.training import _fitting_context, shaped
from volano.device import Device
from volano.errors import DataError

CPU = Device("cpu")


def corpus(num_tokens):
    return SimpleNamespace(train=range(num_tokens), num_train_bytes=3 * num_tokens, origin="x")


@pytest.mark.parametrize(
    ("num_tokens", "context"), [(8 * 256, 256), (8 * 256 - 1, 128), (8 * 16, 16), (4 * 16, 16)]
)
def test_a_context_is_halved_until_the_text_fills_windows(num_tokens, context):
    found, notices = _fitting_context(256, corpus(num_tokens))
    assert found == context
    assert bool(notices) == (context != 256)


def test_a_text_that_fills_none_is_refused():
    with pytest.raises(DataError, match="must have at least 64 tokens; got 63 tokens"):
        _fitting_context(256, corpus(63))


def test_no_batch_is_larger_than_the_text(small_text):
    large = small_text.with_shape(depth=2, batch_size=10**6)
    assert large.batch_size == len(large.windows)
    assert large.tokens_per_step == large.batch_size * 32
    assert large.steps_in(1.0) == 1


def test_what_is_asked_for_is_not_chosen(read_text, tmp_path):
    application = read_text(tmp_path, context=32, depth=3, batch_size=5)
    found = shaped(application, CPU, flops=1e18, num_tokens=1e9)
    assert (found.spec.depth, found.options.batch_size) == (3, 5)


def test_more_arithmetic_is_for_a_deeper_model(small_text):
    depths = [
        shaped(small_text, CPU, flops=flops, num_tokens=1e6).spec.depth for flops in (1, 1e13, 1e19)
    ]
    assert depths == sorted(depths)
    # A small text still gives eight steps an epoch.
    assert shaped(small_text, CPU, flops=1, num_tokens=1e9).steps_in(1.0) >= 8


def test_a_trial_takes_the_time_that_it_is_given(small_text):
    steps = []
    found, seconds = small_text.fit_trial(5.0, lambda task: steps.append(task) or 0.1, CPU)
    assert seconds == 0.1
    assert len(steps) == 2
    assert found.options.depth == found.spec.depth


def test_reasons_name_depth_length_and_regime(small_text):
    first, second = small_text.with_shape(depth=2, batch_size=4).reasons(12, "as asked")
    assert first == "depth 2 (width 128), 12 steps of 128 tokens: as asked"
    assert second.startswith("regime: ")


def test_bytes_per_token_are_those_of_the_windows_that_are_looked_at(small_text):
    ids, first, bytes_per_token = small_text._valid()
    assert ids.shape == (len(first), 33)
    assert 1.0 < bytes_per_token < 8.0
    prompt = small_text._preview().prompt
    assert prompt in small_text.tokenizer.decode(small_text.held[1:40].tolist()).decode()
