"""The digits that lie beside scikit-learn: the embedded sample of images and clips."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np

from volano.errors import DataError

_TABLE = Path("datasets", "data", "digits.csv.gz")
_SIDE, _GREY_LEVELS = 8, 16


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images, uint8 [1797, 8, 8], and their classes, int64 [1797].

    The table itself is read: the import of the library takes longer than all else that is done
    before a small training.

    Raises:
        DataError: scikit-learn does not have it where its releases since 2016 have it.
    """
    spec = importlib.util.find_spec("sklearn")
    places = [] if spec is None else spec.submodule_search_locations or []
    path = next((found for place in places if (found := Path(place) / _TABLE).is_file()), None)
    if path is None:
        raise DataError(
            "scikit-learn must have its digits",
            got=f"no {_TABLE} in {places[0] if places else 'any place'}",
            remedy="Name data of your own, or install scikit-learn again",
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = np.loadtxt(file, delimiter=",")
    grey = rows[:, :-1].reshape(-1, _SIDE, _SIDE) * (255 / _GREY_LEVELS)
    return grey.round().astype(np.uint8), rows[:, -1].astype(np.int64)
