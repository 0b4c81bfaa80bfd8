import pytest

from volano.apps.kinds import CLASSIFY_CLIPS, options_for
from volano.apps.video.classify.options import ClipClassifyOptions
from volano.errors import UsageError


def test_classify_chooses_them():
    kind, options = options_for("video", {"classify": True, "path": "clips", "num_frames": 5})
    assert kind == CLASSIFY_CLIPS
    assert isinstance(options, ClipClassifyOptions)
    assert options.num_frames == 5


def test_there_is_no_embedded_sample():
    with pytest.raises(UsageError, match="needs a path of clips in class folders"):
        ClipClassifyOptions()


def test_an_image_network_is_for_classifiers():
    with pytest.raises(UsageError, match="must come with `classify`"):
        options_for("video", {"path": "clips", "from_": "hf:any"})


def test_code_that_is_named_is_known():
    assert ClipClassifyOptions(path="x", from_="nets:make").code_named() == ("nets:make",)
