import torch
from hypothesis import given
from hypothesis import strategies as st

from volano.apps.image.augment import Augmentation, cut_out, move_and_flip, predict_tta


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
    assert torch.equal(
        move_and_flip(batch, zero, zero, torch.ones(6, dtype=torch.bool)), batch.flip(-1)
    )


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


def test_the_parts_of_ranks_are_those_of_the_whole():
    augment, labels = Augmentation(flip=True, translate=2, cutout=3), torch.arange(6)

    def draws():
        return torch.Generator().manual_seed(4)

    whole = augment((images(6), labels), draws())[0]
    for rank in range(2):
        own = (images(6)[rank::2], labels[rank::2])
        part, kept = augment.of_part(own, draws(), rank, 2)
        assert torch.equal(part, whole[rank::2])
        assert torch.equal(kept, labels[rank::2])
