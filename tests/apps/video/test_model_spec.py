"""The description of a model of clips."""

import pytest

from volano.apps.video.model_spec import VideoSpec
from volano.errors import CheckpointError


def test_the_description_comes_back(spec):
    assert VideoSpec.from_json(spec.to_json()) == spec
    with pytest.raises(CheckpointError, match="schema version 1"):
        VideoSpec.from_json({**spec.to_json(), "schema_version": 9})
    with pytest.raises(CheckpointError, match="must describe a model of clips"):
        VideoSpec.from_json({"schema_version": 1, "network": "unet"})
