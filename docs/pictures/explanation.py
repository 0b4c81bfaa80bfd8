"""Draws what ``volano explain`` prints, in the colours of a terminal, as an SVG on its own.

    volano explain image fashion-mnist --minutes 3 --analyze --json > explanation.json
    python docs/pictures/explanation.py explanation.json docs/pictures/explanation.svg

A second or two. The picture has a background of its own, so that it reads alike on light and dark
pages.
"""

import argparse
import io
import json
import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from volano.cli.show.explanation import SECTIONS, print_parts, render
from volano.plan.explanation import Explanation

# Background, foreground, and the eight colours: of the report's dark page, with the same meaning.
_DARK = TerminalTheme(
    (0x15, 0x18, 0x1B),
    (0xE6, 0xE8, 0xEA),
    [
        (0x27, 0x2C, 0x31), (0xF0, 0x8A, 0x7E), (0x6C, 0xC4, 0x95), (0xDC, 0xB6, 0x59),
        (0x63, 0xB6, 0xDC), (0xB6, 0x99, 0xE6), (0x63, 0xB6, 0xDC), (0xE6, 0xE8, 0xEA),
    ],
)  # fmt: skip
_FONTS = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'


def draw(explanation: dict, sections: list[str], title: str, width: int = 84) -> str:
    """Returns the picture, ``width`` columns wide: 84 can be read where a page scales it down."""
    console = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor",
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip
    print_parts(render(Explanation.from_json(explanation), console, sections=sections), console)
    return svg_of(console, title)


def svg_of(console: Console, title: str) -> str:
    """What a console has recorded, as a picture without fonts of its own."""
    picture = console.export_svg(title=title, theme=_DARK, unique_id="volano")
    picture = re.sub(r"@font-face\s*{[^}]*}", "", picture)  # pictures on pages may load no fonts
    return re.sub(r"font-family: [^;]*;", f"font-family: {_FONTS};", picture)


def main() -> None:
    """Reads the explanation, writes the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "explanation", type=Path, help="what `volano explain --json` printed, or a run's file"
    )
    parser.add_argument("out", type=Path, help="the SVG")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--title", default="volano explain")
    arguments = parser.parse_args()
    explanation = json.loads(arguments.explanation.read_text(encoding="utf-8"))
    arguments.out.write_text(
        draw(explanation, arguments.sections, arguments.title), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
