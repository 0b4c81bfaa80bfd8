"""What packs did in a study, in words and figures: who trained together, why not with others, and what it gained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volano.report.reading import number, sequence
from volano.report.study_record import StudyRecord, values_of
from volano.report.words import NOTHING, count_text, plain_number, seconds_text

NOT_MEASURED = "not measured"
_MOST_LISTED = 12  # numbers of trials in a row of the table


@dataclass(frozen=True, kw_only=True)
class PackRow:
    """A pack in an assignment. ``gain`` is how many times as fast it was as its members one after another."""

    trained_to: str
    trials: str
    members: str
    engine: str
    seconds: str
    speed: str
    gain: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Packs of one engine, set apart for the same reasons."""

    engine: str
    packs: str
    members: str
    steps: str
    seconds: str
    speed: str
    gain: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Everything that is shown. ``verdict`` says in sentences what packing gained against trials trained alone."""

    verdict: tuple[str, ...]
    groups: tuple[Group, ...]
    rows: tuple[PackRow, ...]
    num_packs: int


def packing_of(record: StudyRecord, most_rows: int) -> Packing | None:
    """What packs did; None where no pack has run."""
    packs = record.packs
    if not packs:
        return None
    groups: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for pack in packs:
        groups.setdefault((_engine(pack), _reasons(pack)), []).append(pack)
    ordered = sorted(groups.items(), key=lambda item: -_steps(item[1]))
    return Packing(
        verdict=tuple(_verdict(packs)),
        groups=tuple(_group(engine, reasons, found) for (engine, reasons), found in ordered[:most_rows]),
        rows=tuple(map(_row, packs[:most_rows])),
        num_packs=len(packs),
    )


def gain_of(packs: Iterable[Mapping[str, Any]]) -> tuple[float, float, float] | None:
    """What packs gained where that was measured; None where it was not at all.

    Returns:
        seconds that the same member-steps would have taken one member at a time, seconds that they took, and how many
        member-steps that were.
    """
    solo = taken = steps = 0.0
    for pack in packs:
        alone, seconds, made = (number(pack.get(name)) for name in ("solo_seconds_per_step", "seconds", "steps"))
        if alone is not None and seconds is not None and seconds > 0 and made:
            solo, taken, steps = solo + alone * made, taken + seconds, steps + made
    return (solo, taken, steps) if steps else None


def _verdict(packs: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    steps = _steps(packs)
    seconds = _seconds(packs)
    yield (
        f"{count_text(len(packs), 'pack')} made {count_text(steps, 'member-step')} in {seconds_text(seconds)}, the "
        "making of the packs and the choice of their engines included, evaluation apart."
    )
    found = gain_of(packs)
    if found is None:
        yield f"What packing gained against trials trained alone was {NOT_MEASURED} in this study."
        return
    solo, taken, measured = found
    where = "" if measured >= steps else f", for the {100 * measured / steps:.0f} % of the steps where it was measured"
    whole = (
        f"One member at a time the same steps would have taken {seconds_text(solo)}, by the step of a single member "
        f"timed in this study; in packs they took {seconds_text(taken)}{where}"
    )
    ratio = solo / taken
    if ratio >= 1.005:
        yield f"{whole}: packing made training {ratio:.2f} times as fast."
    elif ratio > 0.995:
        yield f"{whole}: packing gained nothing."
    else:
        yield f"{whole}: packing cost time. Theirs holds the making of the packs, a single member's does not."


def _group(engine: str, reasons: tuple[str, ...], packs: list[Mapping[str, Any]]) -> Group:
    sizes = [len(values_of(pack)) for pack in packs]
    fewest, most = min(sizes), max(sizes)
    return Group(
        engine=engine,
        packs=plain_number(len(packs)),
        members=plain_number(most) if fewest == most else f"{plain_number(fewest)} to {plain_number(most)}",
        steps=plain_number(_steps(packs)),
        seconds=seconds_text(_seconds(packs)),
        speed=_speed(packs),
        gain=_gain(packs),
        reasons=reasons,
    )


def _row(pack: Mapping[str, Any]) -> PackRow:
    share, trials = number(pack.get("share")), values_of(pack)
    listed = ", ".join(map(str, trials[:_MOST_LISTED]))
    return PackRow(
        trained_to=NOTHING if share is None else f"{100 * share:.3g} %",
        trials=listed + (f" and {len(trials) - _MOST_LISTED} more" if len(trials) > _MOST_LISTED else "") or NOTHING,
        members=plain_number(len(trials)),
        engine=_engine(pack),
        seconds=seconds_text(pack.get("seconds")),
        speed=_speed([pack]),
        gain=_gain([pack]),
    )


def _gain(packs: Sequence[Mapping[str, Any]]) -> str:
    found = gain_of(packs)
    return NOT_MEASURED if found is None else f"{found[0] / found[1]:.2f} times"


def _speed(packs: Sequence[Mapping[str, Any]]) -> str:
    seconds = _seconds(packs)
    return plain_number(float(f"{_steps(packs) / seconds:.4g}")) if seconds > 0 else NOTHING


def _steps(packs: Iterable[Mapping[str, Any]]) -> float:
    return sum(number(pack.get("steps")) or 0.0 for pack in packs)


def _seconds(packs: Iterable[Mapping[str, Any]]) -> float:
    return sum(number(pack.get("seconds")) or 0.0 for pack in packs)


def _engine(pack: Mapping[str, Any]) -> str:
    return str(pack.get("engine") or "?")


def _reasons(pack: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(reason) for reason in sequence(pack.get("reasons")))
