"""Names and numbers as a person reads them."""

import pytest

from volano.record import format


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("test_accuracy", 0.97769, "97.77 %"),
        ("bits_per_byte", 2.0434, "2.043"),
        ("psnr_first_frame", 21.416, "21.42 dB"),
        ("frechet_ratio", 2.314, "2.31"),
        ("perplexity", 52.31, "52.31"),
        ("num_test", 10000, "10,000"),
        ("valid_loss", 0.18581921726, "0.1858"),
        ("valid_loss", 3.2e-7, "3.20e-07"),
        ("valid_loss", 0.0, "0"),
        ("tokens_per_second", 41234.5, "41,234"),
        ("anything", None, "—"),
        ("anything", "text", "text"),
        ("anything", float("nan"), "nan"),
    ],
)
def test_figures(name, value, text):
    assert format.figure_text(name, value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.34, "340 ms"),
        (None, "—"),
        (4.93, "4.9 s"),
        (59.96, "1 min 0 s"),
        (192, "3 min 12 s"),
        (7320, "2 h 2 min"),
    ],
)  # fmt: skip
def test_seconds(seconds, text):
    assert format.seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10_235, "10.0 KiB"), (102_350,
        "100 KiB"), (1023 * 1024, "0.999 MiB"), (1.18 * 2**30, "1.18 GiB"), (80 * 2**30,
        "80.0 GiB"), (2**51, "2,048 TiB"), (None, "—"), ("much", "—"),
    ],
)  # fmt: skip
def test_bytes(num_bytes, text):
    # 1023 KiB are written in the next unit: never four digits before a unit's name.
    assert format.bytes_text(num_bytes) == text.replace("0.999 MiB", "1.00 MiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"), (4.56e-7, "0.000456"), (0.000926, "0.926"), (0.0033, "3.30"), (0.009996, "10.0"),
        (0.0412, "41.2"), (0.09996, "100"), (1.2345, "1,234"), (float("nan"), "—"), (None, "—"),
    ],
)  # fmt: skip
def test_milliseconds(seconds, text):
    assert format.milliseconds(seconds) == text
    assert format.ms_text(seconds) == (text if text == "—" else f"{text} ms")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.34, "340 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (99.9, "99.9 s"),
        (99.96, "1.7 min"), (5990, "99.8 min"), (6000, "1.7 h"), (10**7, "2,777.8 h"), (None,
        "—"),
    ],
)  # fmt: skip
def test_seconds_in_one_unit(seconds, text):
    assert format.brief_seconds(seconds) == text


@pytest.mark.parametrize(
    ("name", "is_better"),
    [
        ("test_accuracy", True),
        ("valid_accuracy", True),
        ("psnr_first_frame", True),
        ("tokens_per_second", True),
        ("bits_per_byte", False),
        ("valid_loss", False),
        ("perplexity", False),
        ("frechet_ratio", False),
        ("bits_per_byte_xz", None),
        ("baseline_accuracy", None),
        ("num_test", None),
    ],
)
def test_directions(name, is_better):
    assert format.more_is_better(name) is is_better


def test_titles():
    assert format.title_of("valid_loss") == "validation loss"
    assert format.title_of("test_accuracy") == "test accuracy"
    assert format.title_of("lr") == "learning rate"
    assert format.title_of("valid_psnr") == "validation PSNR"


def test_counts():
    assert format.count_text(1, "step") == "1 step"
    assert format.count_text(1528, "example") == "1,528 examples"
    assert format.count_text(None, "step") == "an unknown number of steps"


def test_a_signal_has_a_name():
    assert [format.signal_name(15), format.signal_name(40)] == ["SIGTERM", "signal 40"]
