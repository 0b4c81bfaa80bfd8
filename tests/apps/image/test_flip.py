"""Whether mirrored images keep their labels is decided from the images."""

import torch
import torch.nn.functional as F

from volano.apps.image.flip import GRID, flip_is_label_preserving, random_patch_features


def images(count=6, channels=3, height=8, width=8):
    return (
        torch.arange(count * channels * height * width)
        .remainder(251)
        .to(torch.uint8)
        .view(count, channels, height, width)
    )


class TestFlipProbe:
    def test_digits_are_not_to_be_mirrored(self, digits):
        pixels, labels = digits
        answer, reason = flip_is_label_preserving(
            (pixels * 255).to(torch.uint8).view(-1, 1, 8, 8), labels, 0
        )
        assert not answer
        assert "left and right carry meaning" in reason

    def test_symmetric_shapes_may_be_mirrored(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 3, (600,), generator=generator)
        batch = torch.randint(0, 80, (600, 1, 16, 16), generator=generator, dtype=torch.uint8)
        for row, label in enumerate(labels.tolist()):
            batch[row, 0, 3 + 4 * label : 6 + 4 * label, 4:12] = (
                250  # a bar, high, in the middle or low
            )
        answer, reason = flip_is_label_preserving(batch, labels, 0)
        assert answer, reason

    def test_classes_that_are_each_others_mirror_are_not(self):
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 4, (800,), generator=generator)
        batch = torch.randint(0, 80, (800, 1, 16, 16), generator=generator, dtype=torch.uint8)
        for row, label in enumerate(labels.tolist()):
            # Left and right arrows.
            where = {0: (slice(4, 12), slice(2, 5)), 1: (slice(4, 12), slice(11, 14))}
            where |= {2: (slice(2, 5), slice(4, 12)), 3: (slice(11, 14), slice(4, 12))}
            batch[row, 0][where[label]] = 250
        assert not flip_is_label_preserving(batch, labels, 0)[0]

    def test_too_few_images_to_tell(self):
        answer, reason = flip_is_label_preserving(images(), torch.arange(6), 0)
        assert not answer
        assert "too few" in reason


def test_features_are_the_means_above_and_below_zero():
    generator = torch.Generator().manual_seed(0)
    some = torch.randn(40, 1, 12, 12, generator=generator)
    bank = torch.randn(3, 1, 5, 5, generator=generator)
    response = F.conv2d(some, bank, padding=2)
    both = torch.cat([F.relu(response), F.relu(-response)], dim=1)
    expected = F.adaptive_avg_pool2d(both, GRID).flatten(1)
    assert torch.allclose(random_patch_features(some, bank), expected, atol=1e-5)
