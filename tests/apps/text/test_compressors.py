"""The baselines of bits per byte beside direct calls."""

import bz2
import lzma
import sysconfig
from pathlib import Path

from volano.apps.text.compressors import CompressorFigures

STDLIB = Path(sysconfig.get_paths()["stdlib"])


def test_compressors_against_direct_calls():
    training = (STDLIB / "argparse.py").read_bytes()
    held = (STDLIB / "optparse.py").read_bytes()
    with CompressorFigures(training, held, num_training_bytes=len(training)) as figures:
        result = figures.result()
    extreme = 9 | lzma.PRESET_EXTREME
    xz = len(lzma.compress(training + held, preset=extreme)) - len(
        lzma.compress(training, preset=extreme)
    )
    both = len(bz2.compress(training + held)) - len(bz2.compress(training))
    assert result == {"xz": round(8 * xz / len(held), 4), "bz2": round(8 * both / len(held), 4)}
    assert figures.notices == ()
    with CompressorFigures(
        b"", held, num_training_bytes=0
    ) as alone:  # what it has seen before helps
        assert alone.result()["xz"] > result["xz"]


def test_they_get_as_much_of_the_end_as_there_is_time_for():
    training = b"".join((STDLIB / name).read_bytes() for name in ("typing.py", "turtle.py")) * 2
    held = (STDLIB / "optparse.py").read_bytes()
    end = training[-(2**18) :]
    with CompressorFigures(training, held, num_training_bytes=10**6, seconds=0.0) as figures:
        result = figures.result()
    with CompressorFigures(end, held, num_training_bytes=len(end)) as alone:
        assert result == alone.result()
    assert figures.notices == ("xz and bz2 were given the last 262,144 bytes of the training text",)
