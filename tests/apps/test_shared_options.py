"""Options that several applications have are checked alike."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from volano.apps.image.options import ImageOptions
from volano.apps.shared_options import columns_of
from volano.apps.text.options import TextOptions
from volano.errors import UsageError


def test_columns_stand_between_commas():
    assert columns_of(None) == ()
    assert columns_of("price, size") == ("price", "size")
    for text in ("price,,size", "price,price"):
        with pytest.raises(UsageError, match="must name different columns"):
            columns_of(text)


def test_a_part_to_train_and_a_pretrained_network_go_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    assert ImageOptions(from_="net", tune="head").from_ == str(tmp_path / "net")
    for one in (Path("net"), SimpleNamespace(path=Path("net"))):  # a folder, and a run
        assert ImageOptions(from_=one).from_ == str(tmp_path / "net")
    with pytest.raises(UsageError, match="`from_` must be a text; got 3"):
        ImageOptions(from_=3)
    with pytest.raises(UsageError, match="`tune` must come with a pretrained network; got head"):
        ImageOptions(tune="head")
    with pytest.raises(UsageError, match="got `size` together with `from_`"):
        ImageOptions(from_="net", size="thin")
    with pytest.raises(UsageError, match="got `depth` together with `from_`"):
        TextOptions(from_="net", depth=3)
