"""What several modules look at: the sample, a feature net trained on it, and both networks."""

import pytest
import torch

from apps.video.specs import SPEC, TRANSFORMER
from volano.apps.video.pixels import PixelScale, pixel_statistics
from volano.apps.video.scoring.features import train_feature_net
from volano.data.sources import bouncing_digits
from volano.device import Device


@pytest.fixture(scope="session")
def device():
    return Device("cpu")


@pytest.fixture(scope="session")
def sets():
    return bouncing_digits()


@pytest.fixture(scope="session")
def net(sets, device):
    torch.set_num_threads(1)
    scale = PixelScale(*pixel_statistics(sets.train.frames, sets.train.lengths))
    return train_feature_net(sets.train.frames[:1000], scale, device, num_steps=80, seed=0)


@pytest.fixture(params=[SPEC, TRANSFORMER], ids=["unet", "transformer"])
def spec(request):
    return request.param
