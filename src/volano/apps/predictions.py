"""The predictions of a trained model, the same for every application: a sequence, JSON, a table, a
file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

from torch import Tensor

from volano.apps.application import Table, TrainedModel
from volano.data import Fault
from volano.errors import UsageError
from volano.record.files import check_out, written

# https://owasp.org/www-community/attacks/CSV_Injection; the last four are of full width.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


class OnePrediction(Protocol):
    """The prediction for one example; its ``cells`` are the row of a table under ``columns`` of the
    first."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the cells."""
        ...

    @property
    def cells(self) -> Sequence[Any]:
        """The values of the row."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The values by name."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassPrediction:
    """The likeliest classes of an example, the likeliest first.

    Attributes:
        path: the path of the example, or its place among those given.
        top: class and probability, as often as asked.
    """

    path: str
    top: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """The probability of the likeliest class."""
        return self.top[0][1]

    @property
    def columns(self) -> Sequence[str]:
        """The path, then class and probability by rank."""
        return [
            "path",
            *(name for rank in range(1, len(self.top) + 1) for name in (f"top{rank}", f"p{rank}")),
        ]

    @property
    def cells(self) -> Sequence[Any]:
        """The values of :attr:`columns`."""
        return [self.path, *(value for pair in self.top for value in pair)]

    def to_json(self) -> dict[str, Any]:
        """The path, and ``top`` as a list of ``class`` and ``probability``."""
        return {
            "path": self.path,
            "top": [{"class": name, "probability": p} for name, p in self.top],
        }


@dataclass(frozen=True, kw_only=True)
class Predictions(Sequence[Any]):
    """The predictions of one call.

    Attributes:
        run: the folder of the run whose model predicted.
        rows: one prediction for each example that could be read.
        unreadable: the others, with the reason.
        notices: texts that a person should read.
        more: further fields of the JSON object.
    """

    run: Path
    rows: Sequence[OnePrediction]
    unreadable: Sequence[Fault] = ()
    notices: Sequence[str] = ()
    more: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        outputs: Tensor,
        names: Sequence[str],
        top_k: int,
        faults: Sequence[Fault],
        notices: Sequence[str],
    ) -> Predictions:
        """Returns what a model's outputs for examples of these names predict."""
        target = model.spec.answers
        rows = target.predictions(outputs, names, top_k)
        more = target.about_predictions(rows)
        return cls(run=model.path, rows=rows, unreadable=faults, notices=notices, more=more)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.rows[index]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as JSON values, as ``volano predict`` prints it."""
        return {
            "run": str(self.run),
            **dict(self.more),
            "predictions": [row.to_json() for row in self.rows],
            "unreadable": [
                {"path": fault.path, "reason": fault.reason} for fault in self.unreadable
            ],
            "notices": list(self.notices),
        }

    def table(self) -> Table:
        """The rows as a table for a person."""
        rows = [
            [f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row.cells]
            for row in self.rows
        ]
        numbers = [
            place for place, cell in enumerate(self.rows[0].cells) if isinstance(cell, float)
        ]
        return Table(title="", columns=self.rows[0].columns, rows=rows, right=numbers)

    def write_csv(self, path: str | Path) -> None:
        """Writes the rows as a table.

        Raises:
            UsageError: it cannot be written.
        """
        check_out(Path(path), "csv")
        try:
            # Names of files that are no UTF-8 are written as the bytes that they are.
            with (
                written(Path(path)) as partial,
                partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(self.rows[0].columns)
                writer.writerows(map(_plain, row.cells) for row in self.rows)
        except OSError as error:
            raise UsageError(
                "The table must be writable", got=f"{path}: {error.strerror}"
            ) from error


def _plain(cell: Any) -> Any:
    """Returns a cell that a spreadsheet shows and does not run: a text that begins like a formula
    gets an apostrophe in front, as OWASP advises, unless it is a number."""
    if not isinstance(cell, str) or not cell.startswith(_FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def class_predictions(
    logits: Tensor, names: Sequence[str], classes: Sequence[str], top_k: int
) -> list[ClassPrediction]:
    """Returns the ``top_k`` likeliest classes of each row of logits fp32 [N, classes]; ``names``
    are those of the rows.

    Raises:
        UsageError: ``top_k`` is below 1.
    """
    if top_k < 1:
        raise UsageError("`top_k` must be a whole number above 0", got=top_k)
    name_of = dict(enumerate(classes))
    top = logits.softmax(1).topk(min(top_k, len(classes)))
    return [
        ClassPrediction(
            path=name,
            top=tuple((name_of[at], round(p, 6)) for at, p in zip(places, values, strict=True)),
        )
        for name, places, values in zip(
            names, top.indices.tolist(), top.values.tolist(), strict=True
        )
    ]
