"""Pages in headless Chromium: they render, pictures have size, nothing complains, nothing is wider
than the screen."""

from __future__ import annotations

import json

import pytest

from report.browser import CHROMIUM, chromium
from report.explanations import make_explanation
from report.folders import make_run, scores_of, write, write_lines
from report.test_page import HOSTILE
from volano.report import write_comparison, write_page

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)"
)

WIDTHS = (400, 1400)
# What reaches over the right edge, but for the insides of boxes that scroll on purpose.
_TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll > *')
    && getComputedStyle(e).position !== 'absolute'
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map(e => e.outerHTML.slice(0, 120))"""
_PICTURES = (
    "[...document.images].map(i => i.decode().then(() => i.naturalWidth * i.width, () => 0))"
)
# Lowest contrast (WCAG 2.1, 1.4.3) of text on an opaque background, and where it is.
_CONTRAST = """(() => {
  const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const line = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => c.slice(0, 3).map(v => v / 255).map(line)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (c.startsWith('rgb(')) return parse(c); if (c.startsWith('color(')) return null;
    if (c !== 'rgba(0, 0, 0, 0)') return null; } return [255, 255, 255]; };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (getComputedStyle(e).visibility === 'hidden') continue;
    const under = paper(e); if (!under) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def page():
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files of one page of each kind."""
    root = tmp_path_factory.mktemp("pages")
    found = {
        kind: write_page(make_run(root / kind, kind))
        for kind in ("image", "text", "video", "python")
    }
    crowded = make_run(root / "crowded", "image", notices=[HOSTILE, "a-long-word-" * 40])
    long_names = [f"a class with quite a long name, number {number}" for number in range(20)]
    write(crowded / "eval-test.json", scores_of(long_names))
    write_lines(
        crowded / "quarantine.jsonl", [{"path": "folder/" * 60 + "broken.jpg", "reason": "e" * 300}]
    )
    write_lines(
        crowded / "numerics.jsonl",
        [{"step": 9, "reason": "r" * 200, "module": "m." * 90, "examples": [1] * 90}],
    )
    write_lines(crowded / "previews.jsonl", [{"step": 1, "prompt": HOSTILE, "text": "w" * 900}])
    write(
        crowded / "explanation.json",
        make_explanation(task=HOSTILE, notices=(HOSTILE, "n" * 300)).to_json(),
    )
    found["crowded"] = write_page(crowded)
    planned = make_run(root / "planned", "python")
    write(planned / "explanation.json", make_explanation().to_json())
    found["planned"] = write_page(planned)
    many = make_run(root / "many", "image")
    write(many / "eval-test.json", scores_of([f"class {number}" for number in range(120)]))
    found["many classes"] = write_page(many)
    other = make_run(root / "other", "image")
    write(
        other / "plan.json", {**json.loads((other / "plan.json").read_text()), "precision": "fp32"}
    )
    write(
        other / "task.json",
        {**json.loads((other / "task.json").read_text()), "objective": "module." * 30},
    )
    runs = [root / "image", other, root / "crowded"]
    found["comparison"] = write_comparison(runs, root / "comparison.html")
    return found


KINDS = ("image", "text", "video", "python", "planned", "crowded", "many classes", "comparison")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_renders(page, pages, kind, width, scheme):
    page.open(pages[kind], width, scheme)
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("data:")] == [
        pages[kind].resolve().as_uri()
    ]
    assert page.evaluate("window.innerWidth") == width
    assert page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )
    assert page.evaluate(_TOO_WIDE) == []
    sizes = page.evaluate(f"Promise.all({_PICTURES})")
    assert all(sizes)
    assert bool(sizes) == (kind not in ("text", "python", "planned", "comparison"))
    assert page.evaluate("document.body.innerText.length") > 500
    charts = page.evaluate(
        "[...document.querySelectorAll('.area')].map(e => e.clientWidth * e.clientHeight)"
    )
    assert charts
    assert min(charts) > 200 * 150


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_stands_out_from_its_background(page, pages, kind, scheme):
    page.open(pages[kind], 1400, scheme)
    ratio, where = page.evaluate(_CONTRAST)
    assert ratio >= 4.5, where


@pytest.mark.parametrize("kind", KINDS)
def test_charts_show_their_lines(page, pages, kind):
    page.open(pages[kind], 400)
    lengths = page.evaluate(
        "[...document.querySelectorAll('.area path.line')].map(e => e.getTotalLength())"
    )
    assert lengths
    assert min(lengths) > 100


def test_clips_stand_still_for_whoever_wants_that(page, pages):
    page.open(pages["video"], 1400)
    current = "[...document.images].slice(0, 2).map(i => i.currentSrc.slice(0, 14))"
    assert page.evaluate(current) == ["data:image/gif"] * 2
    page.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    page.call("Page.reload")
    page.wait_for("Page.loadEventFired")
    assert page.evaluate(current) == ["data:image/png"] * 2


def test_the_pointer_reads_values(page, pages):
    page.open(pages["python"], 1400)
    place = page.evaluate(
        "(e => [e.x + e.width / 2, e.y + "
        "20])(document.querySelector('.area').getBoundingClientRect())"
    )
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    shown = "getComputedStyle(document.querySelector('.readings span:hover'), '::after').content"
    assert page.evaluate(shown).startswith('"step ')


def test_nothing_hostile_runs(page, pages):
    page.open(pages["crowded"], 1400)
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate("document.body.innerText").count("<script>") == 3


def test_prints(page, pages):
    page.open(pages["image"], 1400, "dark")
    page.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.call("Page.printToPDF", printBackground=True)["data"]
    page.call("Emulation.setEmulatedMedia", media="")
