"""The digits as scikit-learn itself reads them."""

import importlib.util

import numpy as np
import pytest
from sklearn.datasets import load_digits

from volano.data.sources.digits import read_digits
from volano.errors import DataError


def test_they_are_those_of_the_library():
    images, labels = read_digits()
    theirs = load_digits()
    assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
    assert np.array_equal(images, (theirs.images * (255 / 16)).round().astype(np.uint8))
    assert np.array_equal(labels, theirs.target)


def test_a_library_without_them_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="scikit-learn must have its digits"):
        read_digits()
