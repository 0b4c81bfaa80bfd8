import torch

from volano.apps.video.classify.augment import ClipViews, looked_at


def clips(count=6, kept=8):
    frames = torch.arange(kept, dtype=torch.uint8).view(1, kept, 1, 1, 1)
    return frames.expand(count, -1, 1, 4, 4).clone(), torch.arange(count)


def test_one_of_each_few_frames_is_taken_in_order():
    frames, labels = clips()
    seen, same = ClipViews(flip=False, translate=0)(
        (frames, labels), torch.Generator().manual_seed(0)
    )
    assert seen.shape == (6, 4, 1, 4, 4)
    assert (seen[:, :, 0, 0, 0] // 2 == torch.arange(4)).all()
    assert len(seen.unique(dim=0)) > 1
    assert same is labels
    assert looked_at(frames)[0, :, 0, 0, 0].tolist() == [0, 2, 4, 6]


def test_the_frames_of_a_clip_are_moved_alike():
    torch.manual_seed(0)
    frames = torch.randint(0, 255, (5, 1, 1, 9, 9), dtype=torch.uint8).expand(-1, 6, -1, -1, -1)
    batch = (frames.contiguous(), torch.zeros(5))
    seen, _ = ClipViews(flip=True, translate=3)(batch, torch.Generator().manual_seed(1))
    assert (seen == seen[:, :1]).all()
    assert (seen[:, :1] != frames[:, :1]).any()


def test_a_rank_has_its_part_of_the_whole():
    views = ClipViews(flip=True, translate=2)
    frames, labels = clips()
    whole, _ = views((frames, labels), torch.Generator().manual_seed(3))
    for rank in (0, 1):
        part = (frames[rank::2], labels[rank::2])
        own, _ = views.of_part(part, torch.Generator().manual_seed(3), rank, 2)
        assert torch.equal(own, whole[rank::2])
