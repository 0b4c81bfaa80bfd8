"""Amounts and knobs as people write them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import PlanError, UsageError
from volano.plan import Plan, knob_text, parse_bytes, parse_setting, status_text


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("40GiB", 40 * 2**30),
        ("512MiB", 512 * 2**20),
        ("2GB", 2_000_000_000),
        ("1.5 GiB", 3 * 2**29),
        (" 64kib ", 65536),
        ("64 kB", 64_000),
        ("0.5TiB", 2**39),
        (".5TB", 500_000_000_000),
        ("1048576", 2**20),
        ("7B", 7),
    ],
)
def test_amounts(text, num_bytes):
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GiB",
        "40G",
        "40 GiBs",
        "-1GiB",
        "0",
        "0.1",
        "1e9",
        "nan",
        "inf",
        "4 0GiB",
        "1,5GiB",
        "1" * 400,
    ],
)
def test_no_amounts(text):
    with pytest.raises(
        UsageError, match="amount of memory must be a number of bytes.*40GiB, 512MiB or 2GB"
    ):
        parse_bytes(text)


@given(st.integers(1, 2**50))
def test_whole_numbers_of_a_unit(number):
    assert parse_bytes(str(number)) == number
    assert parse_bytes(f"{number}KiB") == 1024 * number


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("precision=bf16", ("precision", "bf16")),
        ("memory-format=channels_last", ("memory_format", "channels_last")),
        ("compile=yes", ("compile", True)),
        ("compile=False", ("compile", False)),
        ("micro_batch=32", ("micro_batch", 32)),
        ("micro-batch=none", ("micro_batch", None)),
        ("workers=0", ("workers", 0)),
        ("activation_budget=0.5", ("activation_budget", 0.5)),
        (" threads = 2", ("threads", 2)),
        ("device=cpu", ("device", "cpu")),
    ],
)
def test_settings(text, setting):
    knob, value = parse_setting(text)
    assert (knob, value) == setting
    assert type(value) is type(setting[1])


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("precision", UsageError, "written KNOB=VALUE; got 'precision'"),
        ("speed=high", PlanError, "A plan's knob must be one of .*; got 'speed'"),
        (
            "precision=fp8",
            PlanError,
            "`precision` must be one of fp32, tf32, bf16, fp16; got 'fp8'",
        ),
        ("compile=maybe", PlanError, "`compile` must be one of False, True; got 'maybe'"),
        ("workers=few", PlanError, "`workers` must be a whole number, at least 0; got 'few'"),
        ("micro_batch=1.5", PlanError, "`micro_batch` must be a whole number, at least 1; got 1.5"),
        ("optimizer=none", PlanError, "`optimizer` must be one of"),
    ],
)
def test_no_settings(text, error, message):
    with pytest.raises(error, match=message):
        parse_setting(text)


def test_every_knob_has_words_that_differ_from_value_to_value():
    values = {
        "micro_batch": (None, 1, 32),
        "threads": (None, 1, 8),
        "workers": (0, 1, 4),
        "prefetch": (1, 2),
    }
    values |= {"activation_budget": (0.5, 1.0), "device": ("cpu", "xpu:0")}
    for knob in dataclasses.fields(Plan):
        choices = knob.metadata["choices"] or values[knob.name]
        assert len({knob_text(knob.name, value) for value in choices}) == len(choices)
    assert knob_text("micro_batch", 32) == "micro-batch 32"
    assert knob_text("threads", 4) == "4 threads"
    assert knob_text("knob_of_later", ["odd"]) == "knob of later ['odd']"


def test_what_became_of_a_plan_is_said_in_the_fields_words():
    assert status_text("struck") == "rejected"
    assert status_text("chosen") == "chosen"
