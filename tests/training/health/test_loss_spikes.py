"""A loss far above those before it is a spike; the fall of a healthy run has none."""

import volano
from volano.training.health.loss_spikes import SpikeFinder


def test_a_healthy_run_has_none(make_task, quiet, tmp_path):
    volano.train(make_task(duration="20ep"), out=tmp_path / "run", observer=quiet)
    assert len(quiet.logs) > 20
    assert not any("spike" in record for record in quiet.logs)


def test_the_rule():
    finder = SpikeFinder()
    assert not finder.look([1.0] * 19)
    assert not finder.look([100.0])  # too few before it to tell
    assert not finder.look([1.2])  # within a quarter of the median
    assert finder.look([1.0, 1.3])
    other = SpikeFinder()
    other.load_state_dict(finder.state_dict())
    assert other.look([1.3]) == finder.look([1.3]) is True


def test_losses_of_a_wide_spread_have_wide_limits():
    finder = SpikeFinder()
    finder.look([1.0, 2.0, 3.0] * 10)
    assert not finder.look([2.0 + 14.0])  # ten deviations of 1.4826
    assert finder.look([2.0 + 16.0])


def test_what_lies_long_ago_is_forgotten():
    finder = SpikeFinder()
    finder.look([100.0] * 200)
    finder.look([1.0] * 150)
    assert len(finder.state_dict()) == 200
    assert finder.look([30.0])
    assert finder.state_dict()[-1] == 30.0


def test_losses_below_zero_have_their_limits_above_them():
    finder = SpikeFinder()
    finder.look([-4.0] * 30)
    assert not finder.look([-3.0])
    assert finder.look([-2.9])
