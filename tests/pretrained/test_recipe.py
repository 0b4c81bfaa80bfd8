"""Which part of a network is trained, and the reason."""

from volano.pretrained.recipe import choose_tune


def chosen(asked=None, num_examples=400, pass_seconds=1.0, seconds=180.0, epochs=None):
    return choose_tune(
        asked, num_examples=num_examples, num_classes=10, pass_seconds=pass_seconds,
        seconds=seconds, epochs=epochs,
    )  # fmt: skip


def test_what_is_asked_for_stands():
    assert (chosen("all", num_examples=20).tune, chosen("head").tune) == ("all", "head")


def test_few_examples_or_little_time_train_the_head_alone():
    few, short, enough = chosen(num_examples=80), chosen(pass_seconds=20.0), chosen()
    assert (few.tune, "8 examples a class are too few" in few.reason) == ("head", True)
    assert (short.tune, "70 s a pass" in short.reason) == ("head", True)
    assert (enough.tune, "a tenth" in enough.reason) == ("all", True)
    assert chosen(seconds=None, epochs=2.0).tune == "head"
    assert chosen(seconds=None, epochs=8.0).tune == "all"


def test_with_much_data_a_network_from_nothing_is_named():
    assert "from nothing" in chosen(num_examples=60_000).reason
