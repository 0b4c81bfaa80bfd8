"""Describes the packs of a study in words and figures: who trained together, why not with others,
and what was gained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volano.record.format import NOTHING, count_text, plain_number, seconds_text
from volano.record.json_values import mapping, number, sequence
from volano.record.study import StudyRecord

NOT_MEASURED = "not measured"
# the engine of one member at a time: compared with that it gains and loses nothing
ONE_BY_ONE = "loop"
UNIT = "configuration-step"  # an optimizer step of one trial; the terminal counts the same
_MOST_LISTED = 12  # numbers of trials in a row of the table
_MOST_REFUSALS = 4  # in a row of the table; all stand in packs.jsonl


@dataclass(frozen=True, kw_only=True)
class PackRow:
    """A pack in an assignment. ``gain`` is how many times as fast it trained as its members one
    after another."""

    trained_to: str
    trials: str
    members: str
    engine: str
    startup: str
    training: str
    speed: str
    gain: str


@dataclass(frozen=True, kw_only=True)
class PackGroup:
    """The packs of one structure: ``apart`` says in what it differs from others, ``refused`` which
    engines did not take it, or were not tried, and why."""

    engines: str
    packs: str
    members: str
    steps: str
    startup: str
    training: str
    speed: str
    gain: str
    apart: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The figures of packing that are shown. ``verdict`` says in sentences what packing gained
    against trials trained alone."""

    verdict: tuple[str, ...]
    groups: tuple[PackGroup, ...]
    num_groups: int
    rows: tuple[PackRow, ...]
    num_packs: int


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The gain of packs that were compared with trials one at a time.

    Attributes:
        solo: seconds that the same steps would have taken one trial at a time.
        training: seconds that they took in packs.
        startup: seconds of the preparation, which are in neither.
        steps: number of configuration-steps.
    """

    solo: float
    training: float
    startup: float
    steps: float


def packing_of(record: StudyRecord, most_rows: int) -> Packing | None:
    """Returns the figures of packs; None if no pack has run."""
    packs = record.packs
    if not packs:
        return None
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for pack in packs:
        groups.setdefault(str(pack.get("structure") or "?"), []).append(pack)
    ordered = sorted(groups.values(), key=lambda found: -_steps(found))
    return Packing(
        verdict=tuple(_verdict(packs)),
        groups=tuple(map(_group, ordered[:most_rows])),
        num_groups=len(groups),
        rows=tuple(map(_row, packs[:most_rows])),
        num_packs=len(packs),
    )


def gain_of(packs: Iterable[Mapping[str, Any]]) -> Gain | None:
    """Returns the gain of packs that was measured; None if none was."""
    solo = training = startup = steps = 0.0
    for pack in packs:
        alone = number(pack.get("solo_seconds_per_step"))
        seconds, made = _training([pack]), _steps([pack])
        if alone is not None and _engine(pack) != ONE_BY_ONE and seconds > 0 and made:
            solo, training, steps = solo + alone * made, training + seconds, steps + made
            startup += _startup([pack])
    return Gain(solo=solo, training=training, startup=startup, steps=steps) if steps else None


# ---- in sentences


def _verdict(packs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    workers = len({pack.get("worker") for pack in packs})
    beside = "" if workers < 2 else f", added up over {workers} workers that trained side by side"
    yield (
        f"{count_text(len(packs), 'pack')} made {count_text(_steps(packs), UNIT)} in "
        f"{seconds_text(_training(packs))} "
        f"of training and {seconds_text(_startup(packs))} of start-up (making packs, timing "
        "engines, "
        f"compiling){beside}."
    )
    alone = [pack for pack in packs if _engine(pack) == ONE_BY_ONE]
    if len(alone) == len(packs):
        yield (
            "All were trained one trial at a time (engine loop): packing gained nothing and "
            "cost nothing."
        )
        return
    yield from _compared([pack for pack in packs if _engine(pack) != ONE_BY_ONE])
    if alone:
        yield (
            f"Another {count_text(_steps(alone), UNIT)} were trained one trial at a time (engine "
            "loop), which gains "
            "nothing and costs nothing."
        )


def _compared(packs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Returns the comparison for packs that are one program."""
    steps, found = _steps(packs), gain_of(packs)
    if found is None:
        yield f"What one program for several trials gained was {NOT_MEASURED} in this study."
        return
    some = (
        ""
        if found.steps >= steps
        else f" ({100 * found.steps / steps:.0f} % of theirs, where that was measured)"
    )
    yield (
        f"Packs with one program for their trials made {count_text(found.steps, UNIT)}{some} in "
        f"{seconds_text(found.training)} of training. One trial at a time they would have taken "
        "about "
        f"{seconds_text(found.solo)}, by steps of single trials timed in this study: "
        f"{_ratio(found)}."
    )


def _ratio(found: Gain) -> str:
    ratio, whole = found.solo / found.training, found.solo / (found.training + found.startup)
    if 0.995 < ratio < 1.005:
        return f"packing gained nothing, and its start-up took {seconds_text(found.startup)}"
    times = f"packing made training {ratio:.2f} times as fast"
    if ratio < 1:
        times = f"packing cost time, it trained {ratio:.2f} times as fast"
    return (
        f"{times}, or {whole:.2f} times with the {seconds_text(found.startup)} of start-up "
        "counted against it"
    )


# ---- in tables


def _group(packs: Sequence[Mapping[str, Any]]) -> PackGroup:
    sizes = [len(_members(pack)) for pack in packs]
    fewest, most = min(sizes), max(sizes)
    apart = [tuple(map(str, sequence(pack.get("apart")))) for pack in packs]
    refused = [
        f"{name}: {reason}"
        for pack in packs
        for name, reason in mapping(pack.get("refused")).items()
    ]
    return PackGroup(
        engines=", ".join(dict.fromkeys(map(_engine, packs))),
        packs=plain_number(len(packs)),
        members=plain_number(most)
        if fewest == most
        else f"{plain_number(fewest)} to {plain_number(most)}",
        steps=plain_number(_steps(packs)),
        startup=seconds_text(_startup(packs)),
        training=seconds_text(_training(packs)),
        speed=_speed(packs),
        gain=_gain(packs),
        # As a study continues, a structure is found to differ from more others: the last account is
        # the fullest.
        apart=max(apart, key=lambda reasons: (len(reasons), sum(map(len, reasons)))),
        refused=tuple(dict.fromkeys(refused))[:_MOST_REFUSALS],
    )


def _row(pack: Mapping[str, Any]) -> PackRow:
    share, trials = number(pack.get("share")), _members(pack)
    listed = ", ".join(map(str, trials[:_MOST_LISTED]))
    return PackRow(
        trained_to=NOTHING if share is None else f"{100 * share:.3g} %",
        trials=listed
        + (f" and {len(trials) - _MOST_LISTED} more" if len(trials) > _MOST_LISTED else "")
        or NOTHING,
        members=plain_number(len(trials)),
        engine=_engine(pack),
        startup=seconds_text(_startup([pack])),
        training=seconds_text(_training([pack])),
        speed=_speed([pack]),
        gain=_gain([pack]),
    )


def _gain(packs: Sequence[Mapping[str, Any]]) -> str:
    if all(_engine(pack) == ONE_BY_ONE for pack in packs):
        return "none: one at a time"
    found = gain_of(packs)
    return NOT_MEASURED if found is None else f"{found.solo / found.training:.2f} times"


def _speed(packs: Sequence[Mapping[str, Any]]) -> str:
    seconds = _training(packs)
    return plain_number(float(f"{_steps(packs) / seconds:.4g}")) if seconds > 0 else NOTHING


def _steps(packs: Iterable[Mapping[str, Any]]) -> float:
    return sum(number(pack.get("steps")) or 0.0 for pack in packs)


def _startup(packs: Iterable[Mapping[str, Any]]) -> float:
    return sum(number(pack.get("startup_seconds")) or 0.0 for pack in packs)


def _training(packs: Iterable[Mapping[str, Any]]) -> float:
    return sum(max(0.0, (number(pack.get("seconds")) or 0.0) - _startup([pack])) for pack in packs)


def _engine(pack: Mapping[str, Any]) -> str:
    return str(pack.get("engine") or "?")


def _members(pack: Mapping[str, Any]) -> list[int]:
    return [value for value in sequence(pack.get("numbers")) if isinstance(value, int)]
