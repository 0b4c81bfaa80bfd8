"""The likeliest classes of examples as a table, the same for images and texts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from volano.errors import UsageError


def write_prediction_table(path: Path, predictions: list[dict[str, Any]], top_k: int) -> None:
    """Writes a table of predictions: the path of each example, and its ``top_k`` likeliest classes with probabilities.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        file = path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise UsageError("The table can be written", got=f"{path}: {error.strerror}") from error
    with file:
        writer = csv.writer(file)
        writer.writerow(["path", *(name for place in range(1, top_k + 1) for name in (f"top{place}", f"p{place}"))])
        for row in predictions:
            writer.writerow([row["path"], *(value for one in row["top"] for value in one.values())])
