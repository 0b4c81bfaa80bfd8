"""The descriptions of trained models, kept in runs' folders: from them a model is built and fed
again without its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

from volano.apps.dimensions import check_dimensions, check_figures
from volano.data.sources import CUT, FITS
from volano.errors import CheckpointError
from volano.training import RunFolder

SCHEMA_VERSION = 1
_TUPLES = ("classes", "class_shares", "mean", "std")
_MOST_FPS = 1000


class ModelSpec:
    """The base of all descriptions. A subclass is a frozen dataclass.

    Class attributes:
        file: the name of its file.
        what: what it describes, in words.
        goal: what its application was asked for, if that is not its first goal.
        bounds: the least and the largest value of whole numbers, by name.
    """

    file: ClassVar[str]
    what: ClassVar[str]
    goal: ClassVar[str | None] = None
    bounds: ClassVar[Mapping[str, tuple[int, int]]] = {}

    def to_json(self) -> dict[str, Any]:
        """Returns all fields, the goal if there is one, and the schema's version."""
        fields: Any = self  # a dataclass
        goal = {} if self.goal is None else {"goal": self.goal}
        return {"schema_version": SCHEMA_VERSION, **goal, **asdict(fields)}

    @classmethod
    def of_run(cls, folder: RunFolder) -> Self:
        """Reads the description of a run's model; see :meth:`from_json`."""
        return cls.from_json(folder.read_json(cls.file))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`; a stranger may have written it.

        Raises:
            CheckpointError: another schema version or goal, or fields that do not belong.
        """
        fields = dict(value)
        version, goal = fields.pop("schema_version", None), fields.pop("goal", None)
        if version != SCHEMA_VERSION:
            raise CheckpointError(
                f"{cls.file} must be of schema version {SCHEMA_VERSION}", got=str(version)
            )
        if goal != cls.goal:
            raise CheckpointError(f"{cls.file} must describe {cls.what}", got=str(goal))
        check_dimensions(fields, cls.bounds, cls.file)
        length = cls.num_channels(fields)
        check_figures(fields, {"mean": length, "std": length}, cls.file)
        try:
            return cls.parsed(fields)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{cls.file} must describe {cls.what}", got=error) from error

    @classmethod
    def num_channels(cls, fields: Mapping[str, Any]) -> int | None:
        """Returns how many channels have a mean and a deviation; None if none is described."""
        return fields.get("channels")

    @classmethod
    def parsed(cls, fields: dict[str, Any]) -> Self:
        """Makes the description of what JSON can say.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, or of another type.
        """
        for name in fields.keys() & set(_TUPLES):
            fields[name] = tuple(fields[name])
        if "classes" in fields:
            fields["classes"] = tuple(map(str, fields["classes"]))
        if fields.get("fit", CUT) not in FITS:
            raise ValueError(f"fit={fields['fit']!r}")
        if "fps" in fields and not 0 < float(fields["fps"]) <= _MOST_FPS:
            raise ValueError(f"fps={fields['fps']!r}")
        return cls(**fields)
