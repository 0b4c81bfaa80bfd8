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
    with CompressorFigures(training, held) as figures:
        result = figures.result()
    extreme = 9 | lzma.PRESET_EXTREME
    xz = len(lzma.compress(training + held, preset=extreme)) - len(
        lzma.compress(training, preset=extreme)
    )
    both = len(bz2.compress(training + held)) - len(bz2.compress(training))
    assert result == {"xz": round(8 * xz / len(held), 4), "bz2": round(8 * both / len(held), 4)}
    with CompressorFigures(b"", held) as alone:  # what it has seen before helps
        assert alone.result()["xz"] > result["xz"]
