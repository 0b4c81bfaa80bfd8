"""What is said of pictures that are no squares."""

import pytest

from volano.data.sources.fitting import shape_notices


@pytest.mark.parametrize(
    ("sizes", "is_said"),
    [
        ([(4, 3)] * 10, False),  # just a quarter
        ([(16, 9)] * 2 + [(4, 4)] * 8, True),
        ([(9, 16)] + [(4, 4)] * 9, False),
        ([(1, 1)], False),
        ([(1, 9)], True),
        ([], False),
    ],
)
def test_a_good_part_is_said(sizes, is_said):
    assert bool(shape_notices(sizes, "cut", "images")) == is_said
    assert shape_notices(sizes, "pad", "images") == []
