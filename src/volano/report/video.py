"""The report of a video run: real next to generated clips, prediction against baselines, and the
metric's own test."""

from __future__ import annotations

from dataclasses import dataclass

from volano.record.format import capital, figure_text, share_text, title_of
from volano.record.json_values import mapping, number, sequence
from volano.record.read_run import RunRecord
from volano.report.charts import Chart, Line, draw_chart
from volano.report.media import Media, read_media

_CLIPS = (
    ("Real", ("clips-real.gif",), "Clips of the test set, playing"),
    (
        "Generated",
        ("clips-generated.gif", "clips-generated.mp4"),
        "Clips that the model generated, playing",
    ),
)
_PRETEXT = "The feature net tells {} of tampered clips right; guessing would tell {}."


@dataclass(frozen=True, kw_only=True)
class ClipFigures:
    """A sheet of playing clips."""

    title: str
    alt: str
    media: Media


@dataclass(frozen=True, kw_only=True)
class SelfTestFigures:
    """The result of the test whether the distances can tell spoiled clips from real ones.

    Attributes:
        is_passed: whether they can.
        reason: why they cannot, or empty.
        pretext: how well the feature net learned its task, or empty.
        rows: a set of clips, and its Frechet and kernel distance as a ratio.
    """

    is_passed: bool
    reason: str
    pretext: str
    rows: tuple[tuple[str, str, str], ...]


def clips_of(record: RunRecord, missing: list[str]) -> list[ClipFigures]:
    """Returns real and generated clips, as far as they exist; what cannot be shown is added to
    ``missing``, in words."""
    found = []
    for title, names, alt in _CLIPS:
        reasons = []
        for name in names:
            try:
                media = read_media(record.path / name)
            except (OSError, ValueError) as error:
                reasons.append(str(error))
                continue
            if media is not None:
                found.append(ClipFigures(title=title, alt=alt, media=media))
                break
        else:
            missing += [f"{title.lower()} clips cannot be shown: {reason}" for reason in reasons]
    return found


def prediction_charts(record: RunRecord) -> list[Chart]:
    """Returns charts of PSNR and SSIM of each predicted frame, the model's and the baselines'."""
    titles = {
        "psnr": ("PSNR of each predicted frame", " dB"),
        "ssim": ("SSIM of each predicted frame", ""),
    }
    charts = []
    for name, (title, unit) in titles.items():
        lines = [_line("this model", record.scores.get(name), 1)]
        for place, (baseline, scores) in enumerate(mapping(record.scores.get("baselines")).items()):
            lines.append(_line(title_of(str(baseline)), mapping(scores).get(name), 2 + place % 5))
        charts.append(draw_chart(title, lines, x_name="frame", unit=unit))
    return [chart for chart in charts if chart is not None]


def self_test_of(record: RunRecord) -> SelfTestFigures | None:
    """Returns the table of the self-test, or None if it was not made."""
    test = mapping(record.scores.get("self_test"))
    if not test:
        return None
    accuracy, chance = test.get("pretext_accuracy"), test.get("chance")
    frechet, kernel = mapping(test.get("frechet")), mapping(test.get("kernel"))
    rejected = mapping(record.scores.get("rejected"))
    ratios = rejected or record.scores
    rows = [
        (
            "generated" + ", rejected" * bool(rejected),
            ratios.get("frechet_ratio"),
            ratios.get("kernel_ratio"),
        )
    ]
    rows += [(str(name), frechet.get(name), kernel.get(name)) for name in {**frechet, **kernel}]
    return SelfTestFigures(
        is_passed=test.get("passed") is True,
        reason=str(test.get("reason") or ""),
        pretext=""
        if number(accuracy) is None
        else _PRETEXT.format(share_text(accuracy, 0), share_text(chance, 0)),
        rows=tuple(
            (capital(name), figure_text("frechet_ratio", one), figure_text("kernel_ratio", other))
            for name, one, other in rows
        ),
    )


def nearest_of(record: RunRecord) -> list[tuple[str, str]]:
    """Returns distances to the nearest training clip."""
    found = mapping(record.scores.get("nearest_training_distance"))
    return [
        (capital(title_of(str(name))), figure_text("distance", value))
        for name, value in found.items()
        if number(value) is not None
    ]


def _line(label: str, values: object, colour: int) -> Line:
    found = [(float(frame), number(value)) for frame, value in enumerate(sequence(values), start=1)]
    points = [(frame, value) for frame, value in found if value is not None]
    return Line(label=label, points=points, colour=colour, is_dotted=True, is_dashed=colour > 1)
