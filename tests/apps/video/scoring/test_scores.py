"""Generated and predicted clips, and the figures of predictions."""

import pytest
import torch

from apps.video.specs import SPEC, woken
from volano.apps.video.integrate_flow import ClipSampling
from volano.apps.video.scoring.scores import generate_clips, predict_clips, prediction_scores
from volano.data.sources import Clips
from volano.device import Device

CPU = Device("cpu")


def some_clips(count=5):
    generator = torch.Generator().manual_seed(0)
    shape = (count, SPEC.num_frames, *SPEC.frame_shape)
    return Clips(
        frames=torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        lengths=torch.full((count,), SPEC.num_frames),
        labels=torch.zeros(count, dtype=torch.int64),
        classes=SPEC.classes,
        names=tuple(map(str, range(count))),
    )


def generate(*, label=None, seed=1, **options):
    sampling = ClipSampling(steps=2, label=label, seed=seed)
    given = {"count": 3, "num_frames": 6, "sampling": sampling, **options}
    return generate_clips(woken(SPEC), SPEC, CPU, **given)


def test_a_generated_clip_is_a_function_of_the_seed_and_its_number():
    clips = generate()
    assert (clips.dtype, tuple(clips.shape)) == (torch.uint8, (3, 6, 1, 16, 16))
    # Within one grey level: a batch of another size adds up in another order, and values are
    # rounded to bytes.
    assert (generate(count=2).int() - clips[:2].int()).abs().max() <= 1
    assert not torch.equal(generate(seed=2), clips)
    assert not torch.equal(generate(label=0), generate(label=1))


def test_given_frames_come_back_as_they_were():
    given = some_clips().frames[0, :2]
    clips = generate(given=given, num_frames=8)
    assert clips.shape[1] == 8
    assert torch.equal(clips[:, :2], given.expand(3, -1, -1, -1, -1))


def test_predictions_are_scored_beside_trivial_ones():
    clips = some_clips()
    predicted = predict_clips(woken(SPEC), SPEC, clips, CPU, precision="fp32")
    assert predicted.shape == clips.frames[:, SPEC.context :].shape
    scores = prediction_scores(clips.frames[:, SPEC.context :], clips.frames, clips, SPEC.context)
    assert scores["ssim"] == [pytest.approx(1.0)] * 3  # of what was to be predicted
    copied = scores["baselines"]["copy_last"]["psnr"]
    assert (len(copied), scores["num_clips"], scores["context"]) == (3, 5, 3)
    assert max(copied) < min(scores["psnr"])
