"""Rows of tensors and arrays, whole or in part."""

import pytest
import torch

from volano.data import Arrays


def test_arrays_are_of_one_length():
    from volano.errors import TaskError

    with pytest.raises(TaskError, match="same length"):
        Arrays((torch.zeros(3), torch.zeros(4)))
    assert Arrays(torch.zeros(3)).fingerprint() != Arrays(torch.ones(3)).fingerprint()


def test_a_fingerprint_of_any_strides():
    images = torch.rand(4, 5, 5, 3).permute(0, 3, 1, 2)
    assert Arrays(images).fingerprint() == Arrays(images.contiguous()).fingerprint()
