"""Writes names and numbers as a person reads them."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

from volano.record.json_values import number

# Characters that move a terminal's cursor, change its colours, or turn the direction of writing;
# and halves of characters, by which Python keeps bytes of names that are no UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

NOTHING = "—"  # for an absent value
# Metrics that are shares of 1, by the last word of their names.
_SHARES = ("accuracy", "precision", "recall", "f1")
# Metrics of which more is better, and of which less is, by a word of their names.
_LESS_IS_BETTER = ("loss", "bits_per_byte", "perplexity", "_ratio", "error", "mae", "rmse")
_MORE_IS_BETTER = ("accuracy", "psnr", "ssim", "per_second", "precision", "recall", "f1", "r2")
_TITLES = {
    "f1": "F1",
    "mae": "MAE",
    "r2": "R²",
    "rmse": "RMSE",
    "test_mae": "test MAE",
    "test_r2": "test R²",
    "test_rmse": "test RMSE",
    "test_micro_f1": "test micro F1",
    "test_macro_f1": "test macro F1",
    "baseline_mae": "MAE of the mean",
    "baseline_mean_average_precision": "label frequencies",
    "baseline_micro_f1": "commonest labels",
    "lr": "learning rate",
    "num_test": "test examples",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "psnr_first_frame": "PSNR, first frame",
    "frechet_ratio": "Fréchet ratio",
    "kernel_ratio": "kernel ratio",
    "ssim_first_frame": "SSIM, first frame",
    "num_test_bytes": "test bytes",
    "train_loss": "training loss",
    "baseline_accuracy": "commonest class",
    "bits_per_byte_xz": "bits per byte, xz",
    "bits_per_byte_bz2": "bits per byte, bz2",
    "examples_per_second": "examples per second",
}


def signal_name(number: int) -> str:
    """Returns the name of a signal; real-time ones have none of their own."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def for_terminal(text: str) -> str:
    """Returns a text that a terminal shows and does not obey: control characters are written as
    Python writes them, but for line ends and tabs."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# How a notice names parameters, which stand in backquotes; a command line puts in its flags.
_wordings: list[Callable[[str], str]] = []


@contextlib.contextmanager
def parameters_worded(words: Callable[[str], str]) -> Iterator[None]:
    """A context in which :func:`notice_text` writes the parameters of notices by a function."""
    _wordings.append(words)
    try:
        yield
    finally:
        _wordings.pop()


def notice_text(text: str) -> str:
    """Returns a notice as a person reads it here."""
    return _wordings[-1](text) if _wordings else text


def title_of(name: str) -> str:
    """Writes ``valid_loss`` as ``validation loss``."""
    if name in _TITLES:
        return _TITLES[name]
    if name.startswith("valid_"):
        return f"validation {title_of(name.removeprefix('valid_'))}"
    return name.replace("_", " ")


def capital(text: str) -> str:
    """Returns the text with a capital at the start, and nothing else changed."""
    return text[:1].upper() + text[1:]


def more_is_better(name: str) -> bool | None:
    """Returns whether a larger figure is the better one; None if neither can be said."""
    if name.startswith("baseline"):
        return None
    if any(word in name for word in _MORE_IS_BETTER):
        return True
    is_less = any(word in name for word in _LESS_IS_BETTER) and not name.endswith(("_xz", "_bz2"))
    return False if is_less else None


def figure_text(name: str, value: Any) -> str:
    """A figure with as many digits as its kind deserves: shares in percent, counts with
    separators."""
    figure, name = number(value), name.removeprefix("valid_")
    if figure is None:
        return NOTHING if value is None else short(str(value), 60)
    if is_share(name):
        return f"{100 * figure:.2f} %"
    if name.startswith("bits_per_byte"):
        return f"{figure:.3f}"
    if name.startswith("psnr"):
        return f"{figure:.2f} dB"
    if name.endswith("_ratio"):
        return f"{figure:.2f}"
    return plain_number(figure)


def is_share(name: str) -> bool:
    """Returns whether a metric of this name is a share of 1."""
    return name.rsplit("_", 1)[-1] in _SHARES


def share_text(value: Any, digits: int = 1) -> str:
    """Writes ``0.9629`` as ``96.3 %``."""
    share = number(value)
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def plain_number(value: float) -> str:
    """Writes a number with four significant digits, thousands separated, no exponent between 0.0001
    and a billion."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def bytes_text(num_bytes: Any) -> str:
    """Returns bytes with three significant digits: ``604 MiB``, ``1.18 GiB``."""
    value = number(num_bytes)
    if value is None:
        return NOTHING
    if value < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 999.5 or unit == "TiB":
            break
    return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    """Writes a number from 1 on with three significant digits, thousands separated."""
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def ms_text(seconds: Any) -> str:
    """Returns a time of milliseconds as text: ``0.0412`` -> ``41.2 ms``."""
    return f"{milliseconds(seconds)} ms" if number(seconds) is not None else NOTHING


def milliseconds(seconds: Any) -> str:
    """Returns three significant digits, without an exponent above a microsecond; a dash for
    nothing."""
    value = number(seconds)
    if value is None:
        return NOTHING
    value *= 1e3
    return f"{value:.3g}" if value < 0.9995 else _three_digits(value)


def brief_seconds(seconds: Any) -> str:
    """Returns seconds in one unit, for tables: ``340 ms``, ``12.3 s``, ``4.2 min``, ``3.1 h``."""
    value = number(seconds)
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    unit, size = next(
        ((unit, size) for unit, size in (("s", 1), ("min", 60)) if value < 99.95 * size),
        ("h", 3600),
    )
    return f"{value / size:,.1f} {unit}"


def seconds_text(value: Any) -> str:
    """Writes ``0.34`` as ``340 ms``, ``4.93`` as ``4.9 s``, ``192`` as ``3 min 12 s``, ``7320`` as
    ``2 h 2 min``."""
    seconds = number(value)
    if seconds is None or seconds < 0.95:
        return brief_seconds(seconds)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def brief_value(value: Any) -> str:
    """Returns a value as short as it can be told."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def count_text(count: Any, noun: str) -> str:
    """Writes ``1`` and ``example`` as ``1 example``; ``1528`` as ``1,528 examples``."""
    value = number(count)
    words = noun if value == 1 else f"{noun}s"
    return f"{'an unknown number of' if value is None else plain_number(value)} {words}"


def short(text: str, length: int) -> str:
    """Shortens a text to at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(value: Any) -> str:
    """Returns a value as a text in one line, without characters that steer a terminal."""
    text = printable(" ".join(str(value).split()))
    return "".join("\ufffd" if 0x7F <= ord(character) < 0xA0 else character for character in text)


def plotted(text: str) -> str:
    """Returns a text for a picture of Matplotlib, which would read a formula between two dollars,
    and draws no halves of characters."""
    return printable(text).replace("$", r"\$")


def printable(text: str) -> str:
    """Removes the control characters that no page may hold."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000) else "�" for c in text
    )
