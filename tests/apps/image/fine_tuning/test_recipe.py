"""The numbers of fine-tuning."""

from volano.apps.image.fine_tuning.recipe import choose_fine_tuning


def chosen(tune, num_train=320, batch_size=None):
    return choose_fine_tuning(
        tune, num_train=num_train, resolution=224, epochs=8, batch_size=batch_size
    )


def test_the_head_is_trained_for_what_it_was_solved_for():
    head, every = chosen("head"), chosen("all")
    assert (head.label_smoothing, head.translate) == (0.0, 0)
    assert (every.label_smoothing, every.translate) == (0.1, 7)
    assert every.head_lr > every.trunk_lr
    assert head.head_lr == head.batch_size / 320  # an epoch is one step of all examples


def test_batches_suit_few_examples():
    assert (chosen("all").batch_size, chosen("head", 8000).batch_size) == (20, 256)
    assert chosen("all", num_train=5).batch_size == 5
    assert chosen("all", batch_size=16).batch_size == 16
