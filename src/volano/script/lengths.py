"""The lengths of scripts' runs: from them follows how long looking for a plan may take before the
next run.

A length is told by a run with the same arguments, or by one that differs in the one value that says
how long: one epoch tells of a hundred.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volano.errors import UsageError
from volano.record.cache_folder import read_record, write_record
from volano.record.json_values import mapping, number, sequence
from volano.script.remembered import Script, digest, free_values, scripts_folder

SCHEMA_VERSION = 1
# Not the steps of a log or a warm-up.
_HOW_LONG = re.compile(r"--?((num|n|nb|max|train|total)[-_])*(epochs?|steps?|iters?|iterations)")
_MOST_ENTRIES = 16  # of a script, the newest
_MOST_FILES = 20_000  # looked at in some tenths of a second


@dataclass(frozen=True, kw_only=True)
class ScriptLength:
    """The length of a run of a script.

    Attributes:
        seconds: seconds from its start to its end.
        startup_seconds: those before the end of its first step.
        is_whole: whether it came to its end by itself; otherwise it lasts at least so long.
        written: a file below the current folder that it wrote, or None.
    """

    seconds: float
    startup_seconds: float
    is_whole: bool = True
    written: str | None = None


def written_since(folder: Path, seconds: float) -> str | None:
    """Returns the first file found below a folder that was written after a time of the clock
    (``time.time``), or None; caches of Python and hidden folders aside. Where there are too many to
    look at, the folder itself stands for what may have been written."""
    seen = 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in files:
            seen += 1
            if seen > _MOST_FILES:
                return str(folder)
            path = Path(root, name)
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime >= seconds:
                    return str(path.relative_to(folder))
    return None


def length_file(script: Script) -> Path | None:
    """Returns the file of a script's lengths; None for one whose code is not looked at."""
    try:
        return scripts_folder() / "lengths" / f"{digest(script)}.json"
    except UsageError:
        return None


def note_length(path: Path, arguments: tuple[str, ...], length: ScriptLength) -> None:
    """Writes how long a run with these arguments took."""
    values = _values(arguments)
    entries = _entries(path)
    before = next((seconds_of for found, seconds_of in entries if found == values), None)
    if before is not None and not length.is_whole and before.seconds > length.seconds:
        return  # it was stopped sooner than the last time
    kept = [(values, length), *[entry for entry in entries if entry[0] != values]][:_MOST_ENTRIES]
    record = {
        "schema_version": SCHEMA_VERSION,
        "lengths": [{"arguments": found, **dataclasses.asdict(one)} for found, one in kept],
    }
    write_record(path, record)


def expected_length(script: Script) -> ScriptLength | None:
    """Returns how long a script will take, by earlier runs; None if that cannot be told."""
    path = length_file(script)
    if path is None or any("resume" in argument for argument in script.arguments):
        return None
    own = _values(script.arguments)
    told = [(_ratio(found, own), length) for found, length in _entries(path)]
    told = [(ratio, length) for ratio, length in told if ratio is not None]
    if not told:
        return None
    ratio, length = min(told, key=lambda one: one[0] != 1)
    rest = ratio * (length.seconds - length.startup_seconds)
    return dataclasses.replace(length, seconds=length.startup_seconds + rest)


def _values(arguments: tuple[str, ...]) -> dict[str, str]:
    found = free_values(arguments)
    return {name: value for name, value in found.items() if _HOW_LONG.fullmatch(name)}


def _ratio(before: dict[str, str], now: dict[str, str]) -> float | None:
    """Returns how many times as long a run takes; None if the values do not tell it."""
    if before == now:
        return 1.0
    if len(now) != 1 or before.keys() != now.keys():
        return None  # of epochs and a largest number of steps, what ends a run first counts
    try:
        ((old, new),) = zip(before.values(), now.values(), strict=True)
        ratio = float(new) / float(old)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if 0 < ratio < float("inf") else None


def _entries(path: Path) -> list[tuple[dict[str, str], ScriptLength]]:
    record = read_record(path, SCHEMA_VERSION)
    return [
        (dict(mapping(entry["arguments"])), length)
        for entry in map(mapping, sequence(record.get("lengths")))
        if (length := _length(entry)) is not None and "arguments" in entry
    ]


def _length(entry: Any) -> ScriptLength | None:
    seconds, startup = number(entry.get("seconds")), number(entry.get("startup_seconds"))
    if seconds is None or startup is None:
        return None
    written = entry.get("written")
    return ScriptLength(
        seconds=seconds,
        startup_seconds=startup,
        is_whole=bool(entry.get("is_whole")),
        written=written if isinstance(written, str) else None,
    )
