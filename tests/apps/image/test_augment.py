import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.apps.image.augment import Augmentation, cut_out, move_and_flip, predict_tta
from volano.apps.image.flip import flip_is_label_preserving
from volano.apps.image.objective import Classification, balanced_weights


def images(count=6, channels=3, height=8, width=8):
    return (
        torch.arange(count * channels * height * width)
        .remainder(251)
        .to(torch.uint8)
        .view(count, channels, height, width)
    )


@given(st.integers(-3, 3), st.integers(-3, 3), st.booleans())
def test_a_move_is_a_crop_of_the_reflected_image(down, right, flip):
    batch = images(2)
    mask = torch.tensor([flip, flip])
    moved = move_and_flip(batch, torch.tensor([down] * 2), torch.tensor([right] * 2), mask)
    padded = torch.nn.functional.pad(batch.float(), (3, 3, 3, 3), mode="reflect")
    expected = padded[:, :, 3 - down : 11 - down, 3 - right : 11 - right]
    plain = move_and_flip(batch, torch.tensor([down] * 2), torch.tensor([right] * 2), None)
    assert torch.equal(plain.float(), expected)
    if not flip:
        assert torch.equal(moved, plain)


def test_a_flip_mirrors():
    batch = images()
    zero = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(move_and_flip(batch, zero, zero, torch.ones(6, dtype=torch.bool)), batch.flip(-1))


def test_a_square_takes_the_mean_colour():
    batch = images(1)
    out = cut_out(batch, torch.tensor([2]), torch.tensor([-1]), 3)
    colour = batch.float().mean((2, 3)).to(torch.uint8)[:, :, None, None]
    assert torch.equal(out[:, :, 2:5, :2], colour.expand(1, 3, 3, 2))
    assert torch.equal(out[:, :, :, 2:], batch[:, :, :, 2:])


def test_bytes_stay_bytes_and_draws_come_from_the_generator():
    augment = Augmentation(flip=True, translate=2, cutout=3)
    batch, labels = images(), torch.arange(6)
    one, same_labels = augment((batch, labels), torch.Generator().manual_seed(1))
    two, _ = augment((batch, labels), torch.Generator().manual_seed(1))
    other, _ = augment((batch, labels), torch.Generator().manual_seed(2))
    assert one.dtype == torch.uint8
    assert one.shape == batch.shape
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert same_labels is labels


def test_nothing_asked_nothing_changed():
    batch = images()
    out, _ = Augmentation(flip=False, translate=0, cutout=0)((batch, None), torch.Generator())
    assert torch.equal(out, batch)


def test_views_of_a_symmetric_model_agree():
    def model(batch):
        return batch.float().mean((2, 3))  # blind to flips

    batch = images()
    assert torch.allclose(predict_tta(model, batch, flip=True, translate=0), model(batch))


class TestFlipProbe:
    def test_digits_are_not_to_be_mirrored(self, digits):
        pixels, labels = digits
        answer, reason = flip_is_label_preserving((pixels * 255).to(torch.uint8).view(-1, 1, 8, 8), labels, 0)
        assert not answer
        assert "left and right carry meaning" in reason

    def test_symmetric_shapes_may_be_mirrored(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 3, (600,), generator=generator)
        batch = torch.randint(0, 80, (600, 1, 16, 16), generator=generator, dtype=torch.uint8)
        for row, label in enumerate(labels.tolist()):
            batch[row, 0, 3 + 4 * label : 6 + 4 * label, 4:12] = 250  # a bar, high, in the middle or low
        answer, reason = flip_is_label_preserving(batch, labels, 0)
        assert answer, reason

    def test_classes_that_are_each_others_mirror_are_not(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 4, (800,), generator=generator)
        batch = torch.randint(0, 80, (800, 1, 16, 16), generator=generator, dtype=torch.uint8)
        for row, label in enumerate(labels.tolist()):
            where = {0: (slice(4, 12), slice(2, 5)), 1: (slice(4, 12), slice(11, 14))}  # left and right arrows
            where |= {2: (slice(2, 5), slice(4, 12)), 3: (slice(11, 14), slice(4, 12))}
            batch[row, 0][where[label]] = 250
        assert not flip_is_label_preserving(batch, labels, 0)[0]

    def test_too_few_images_to_tell(self):
        answer, reason = flip_is_label_preserving(images(), torch.arange(6), 0)
        assert not answer
        assert "too few" in reason


class TestObjective:
    def test_training_smooths_and_weighs_evaluation_does_not(self, digits):
        pixels, labels = digits
        model = torch.nn.Linear(64, 10)
        weights = tuple(float(number + 1) for number in range(10))
        objective = Classification(label_smoothing=0.1, class_weights=weights)
        loss = objective(model.train(), (pixels[:50], labels[:50]))
        expected = torch.nn.functional.cross_entropy(
            model(pixels[:50]), labels[:50], weight=torch.tensor(weights), label_smoothing=0.1
        )
        assert (loss.total / loss.weight).item() == pytest.approx(expected.item(), rel=1e-6)
        plain = objective(model.eval(), (pixels[:50], labels[:50]))
        expected = torch.nn.functional.cross_entropy(model(pixels[:50]), labels[:50])
        assert (plain.total / plain.weight).item() == pytest.approx(expected.item(), rel=1e-6)

    def test_weights_only_where_the_classes_are_far_apart(self):
        assert balanced_weights(torch.tensor([0] * 5 + [1]), 2) is None
        assert balanced_weights(torch.tensor([0] * 18 + [1] * 2), 2) == pytest.approx((20 / 36, 5.0))
