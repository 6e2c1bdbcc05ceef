"""A run's report is one page that says everything, to everybody, anywhere: looked at in a real browser."""

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdf
import pytest
from playwright.sync_api import Page

from flowerbed.errors import UsageError
from flowerbed.runs import report
from tests.pages.pages import Made

Look = Callable[..., Page]
TROUBLED = Made(
    rounds=5,
    failures={(2, "train", "hospital-b"): "ValueError: no column 'age' in the table"},
    missing={(4, "evaluate", "hospital-c")},
    no_number={3},
    status="incomplete",
    reason="round 2 train: 2 of 3 replies; and 1 more",
)
MANY = Made(sites=[f"hospital-{number:02}" for number in range(1, 51)], rounds=20)
LONG = Made(rounds=100)
ONE_ROUND = Made(rounds=1, sites=["hospital-a"])
SILENT = Made(rounds=0, status="failed", reason="RuntimeError: no checkpoint", recorded=False)
HUGE = Made(scale=-1.7e299, rounds=4)
TOO_HUGE = Made(scale=1.7e308, rounds=2)
TINY = Made(scale=5e-324, rounds=2)
ALL = {
    "troubled": TROUBLED,
    "many": MANY,
    "long": LONG,
    "one round": ONE_ROUND,
    "silent": SILENT,
    "huge numbers": HUGE,
    "too huge": TOO_HUGE,
    "tiny": TINY,
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of one of the runs above."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = ALL[name].write(tmp_path_factory.mktemp("runs"))
        return made[name]

    return folder


# Hostile text: in every place where an app or a site chooses it.
EVIL = (
    "</title></style></svg></pre><script>document.title='pwned'</script><img src=https://evil.invalid/x onerror="
    "\"document.title='pwned'\">\"'{{7*7}}&lt;b&gt;<a href='javascript:0'>x</a><style>@import 'https://evil.invalid/y'</style>"
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sites = [f"{EVIL}{letter}" for letter in "ab"]
    folder = Made(
        sites=sites,
        rounds=2,
        metric=EVIL,
        config={EVIL: EVIL},
        failures={(1, "train", sites[0]): EVIL},
        status="incomplete",
        reason=EVIL,
        log=[EVIL, "\x1b[91mred\x00"],
    ).write(tmp_path_factory.mktemp("hostile"))
    record = json.loads((folder / "run.json").read_text())
    record["app"] |= {"name": EVIL, "publisher": EVIL, "version": EVIL}
    (folder / "run.json").write_text(json.dumps(record | {"federation": EVIL, "origin": EVIL, "files": [EVIL]}))
    report.write(folder)
    return folder


@pytest.mark.parametrize("name", ALL)
def test_the_page_needs_nothing_but_itself(folder_of: Callable[[str], Path], look: Look, name: str) -> None:
    page = look(folder_of(name))
    assert page.asked == [page.url]  # type: ignore[attr-defined] - see `look`


def test_what_an_app_or_a_site_names_itself_is_text_and_nothing_else(hostile: Path, look: Look) -> None:
    page = look(hostile)
    assert page.asked == [page.url]  # type: ignore[attr-defined] - see `look`
    assert page.title() == f"{EVIL} on {EVIL}: incomplete"
    for element in ("script", "img", "a", "iframe", "link", "b b", "body style"):
        assert page.locator(element).count() == 0, element
    shown = page.locator("body").inner_text()
    # Title, verdict, the site in each of its places, the error, the setting and its value, the log.
    assert shown.count(EVIL) >= 10
    assert "{{7*7}}" in shown


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", [*ALL, "hostile"])
def test_nothing_is_wider_than_the_screen(
    folder_of: Callable[[str], Path], hostile: Path, look: Look, name: str, width: int
) -> None:
    page = look(hostile if name == "hostile" else folder_of(name), width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # What is wide scrolls by itself: nothing else reaches out of its parent.
    assert page.evaluate(_OUTSIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_background(folder_of: Callable[[str], Path], look: Look, scheme: str) -> None:
    for name in ("troubled", "silent"):
        page = look(folder_of(name), scheme=scheme)
        found = page.evaluate(_CONTRASTS)
        assert len(found) > 20
        assert [one for one in found if one["ratio"] < 4.5] == []
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_line_and_block_stands_out_from_its_background(
    folder_of: Callable[[str], Path], look: Look, scheme: str
) -> None:
    page = look(folder_of("troubled"), scheme=scheme)
    for drawn in page.evaluate(_STROKES):
        assert drawn["ratio"] >= 3 or drawn["what"] == "evaluate", drawn
    # Training and evaluation are told apart without colour, too: by how light they are.
    light = {one["what"]: one["ratio"] for one in page.evaluate(_STROKES)}
    assert light["train"] / light["evaluate"] >= 1.8


@pytest.mark.parametrize(
    "name", ["troubled", "one round", "long", "many", "huge numbers", "too huge", "tiny", "silent"]
)
def test_all_numbers_of_the_table_are_on_the_page(folder_of: Callable[[str], Path], look: Look, name: str) -> None:
    folder = folder_of(name)
    with (folder / "metrics.csv").open() as stream:
        expected = {
            (row["round"], row["phase"], row["site"], row["metric"]): _number(row["value"])
            for row in csv.DictReader(stream)
        }
    assert _numbers(look(folder)) == expected


def test_each_metric_has_a_curve_with_its_sites(folder_of: Callable[[str], Path], look: Look) -> None:
    page = look(folder_of("troubled"))
    captions = [" ".join(text.split()) for text in page.locator("figcaption").all_inner_texts()]
    last = page.locator("table.numbers").first.locator("tbody tr").last.locator("td").all_inner_texts()
    assert captions == [
        f"accuracy {kind} {float(text):.4g}" for kind, text in zip(("train", "evaluate"), last, strict=True)
    ]
    for figure in page.locator("figure").all():
        names = [line.locator("> title").text_content() for line in figure.locator("g").all()]
        assert names == ["hospital-a", "hospital-b", "hospital-c", "all sites"]


@pytest.mark.parametrize("name", ["troubled", "one round", "huge numbers", "too huge", "tiny", "long", "many"])
def test_curves_stay_in_their_drawing(folder_of: Callable[[str], Path], look: Look, name: str) -> None:
    page = look(folder_of(name))
    assert page.locator("figure").count() == 2
    assert page.evaluate(_CURVES_OUTSIDE) == []


def test_a_value_that_is_no_number_breaks_the_curve_and_is_said(folder_of: Callable[[str], Path], look: Look) -> None:
    together = look(folder_of("troubled")).locator("figure").nth(0).locator("g").last
    assert together.locator("path.line").get_attribute("d").count("M") == 2  # type: ignore[union-attr] - it has one
    assert together.locator("title").all_text_contents() == ["all sites", "all sites: no number"]


def test_eight_sites_are_told_apart_without_colour(tmp_path: Path, look: Look) -> None:
    page = look(Made(sites=[f"site-{letter}" for letter in "abcdefgh"]).write(tmp_path))
    assert len(set(page.evaluate(_LOOKS))) == 8


def test_of_many_sites_there_is_a_band_and_the_extremes_are_named(folder_of: Callable[[str], Path], look: Look) -> None:
    page = look(folder_of("many"))
    figure = page.locator("figure").nth(0)
    assert (figure.locator("path.band").count(), figure.locator("g").count()) == (1, 1)
    assert "highest hospital-01" in figure.inner_text() and "lowest hospital-50" in figure.inner_text()


def test_the_timeline_has_a_block_for_each_message_and_marks_the_last_the_failed_and_the_missing(
    folder_of: Callable[[str], Path], look: Look
) -> None:
    page = look(folder_of("troubled"))
    lanes = page.locator("svg.lane").all()
    assert len(lanes) == 3
    titles = [text for lane in lanes for text in lane.locator("rect > title").all_text_contents()]
    assert len(titles) == 3 * 5 * 2
    assert "round 2 train, hospital-b: failed (ValueError: no column 'age' in the table) after 4.0 s" in titles
    assert "round 4 evaluate, hospital-c: no reply came" in titles
    assert page.locator("rect.failure > title").count() == page.locator("rect.missing > title").count() == 1
    # One of each phase is the last.
    assert page.locator(".lane path.latest").count() == 10
    assert all(_inside(lane) for lane in lanes)


def test_who_failed_and_who_is_missing_stands_on_top(folder_of: Callable[[str], Path], look: Look) -> None:
    rows = look(folder_of("troubled")).locator("section").first.locator("tbody tr").all()
    assert [" ".join(row.inner_text().split()) for row in rows] == [
        "2 train hospital-b failed: ValueError: no column 'age' in the table",
        "4 evaluate hospital-c no reply came",
    ]


def test_each_sites_contribution_is_counted(folder_of: Callable[[str], Path], look: Look) -> None:
    rows = look(folder_of("troubled")).locator("section[aria-labelledby=sites] tbody tr").all()
    cells = [[" ".join(cell.split()) for cell in row.locator("th, td").all_inner_texts()] for row in rows]
    # 10, 11 and 12 examples; 10 messages of 4096 bytes, and replies as large after 3, 4 and 5 s; one came not at all,
    # and the one that failed brought nothing.
    assert cells == [
        ["hospital-a", "10", "30.3%", "10 of 10", "3.0 s", "3.0 s", "", "41 kB", "41 kB"],
        ["hospital-b", "11", "33.3%", "9 of 10", "4.0 s", "4.0 s", "1", "41 kB", "36.9 kB"],
        ["hospital-c", "12", "36.4%", "9 of 10", "5.0 s", "5.0 s", "9", "41 kB", "36.9 kB"],
    ]


def test_overrides_are_marked(folder_of: Callable[[str], Path], look: Look) -> None:
    text = look(folder_of("troubled")).locator("section[aria-labelledby=config]").inner_text()
    marked = [line for line in text.splitlines() if "given for this run" in line]
    assert len(marked) == 1 and marked[0].startswith("rate")


def test_everything_about_where_it_came_from_is_there(folder_of: Callable[[str], Path], look: Look) -> None:
    text = look(folder_of("troubled")).locator("section[aria-labelledby=provenance]").inner_text()
    for known in ("ab" * 32, "git+https://example.org/apps.git@v1", "anna@consortium", "numpy 2.2.0", "3.11.2", "4711"):
        assert known in text
    assert text.count("100000000000000000") == 3, "the sites' node ids"


def test_it_prints_light_and_complete_and_cuts_no_row(tmp_path: Path, look: Look) -> None:
    """Each row has a text of several lines between two marks, which must be on one page."""
    sites = [f"hospital-{number:02}" for number in range(20)]
    failures = {(1, "train", site): f"BEGIN{site[-2:]} " + "long reason " * 30 + f"END{site[-2:]}" for site in sites}
    made = Made(sites=sites, rounds=2, failures=failures, status="failed", reason="nobody trained")
    page = look(made.write(tmp_path), scheme="dark", fresh=True)
    pages = [each.extract_text() for each in pypdf.PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True))).pages]
    assert len(pages) > 2
    for site in sites:
        on = [[index for index, text in enumerate(pages) if f"{mark}{site[-2:]}" in text] for mark in ("BEGIN", "END")]
        assert on[0] == on[1] and len(on[0]) == 1, (site, on)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("name", ["troubled", "one round", "huge numbers"])
def test_on_paper_nothing_is_wider_than_the_sheet(folder_of: Callable[[str], Path], look: Look, name: str) -> None:
    page = look(folder_of(name), width=696, fresh=True)  # A4 within its margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 696
    assert page.evaluate(_OUTSIDE) == []


def test_a_reader_of_the_page_aloud_hears_each_chart(folder_of: Callable[[str], Path], look: Look) -> None:
    page = look(folder_of("troubled"))
    for figure in page.locator("svg.chart").all():
        assert figure.get_attribute("role") == "img"
        assert "All sites together: from" in figure.locator("desc").text_content()  # type: ignore[operator] - it has one
    assert page.locator("svg.lane").nth(1).get_attribute("aria-label") == (
        "hospital-b: 10 messages, 1 failed, 0 without a reply"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('svg')].every(s => s.closest('[aria-hidden]') || s.closest('[role=img]'))"
    )


def test_a_report_can_be_made_anew_from_the_record(folder_of: Callable[[str], Path]) -> None:
    folder = folder_of("troubled")
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert report.write(folder) == folder / "report.html"
    assert (folder / "report.html").read_text() == before


def test_a_record_of_an_older_flowerbed_has_a_report_too(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    record: dict[str, Any] = json.loads((folder_of("troubled") / "run.json").read_text())
    for key in ("labels", "by", "versions", "timings", "recorded"):
        del record[key]
    for entry in record["rounds"]:
        for phase in ("train", "evaluate"):
            del entry[phase]["replies"]
    (tmp_path / "run.json").write_text(json.dumps(record | {"schema": 1}))
    text = report.write(tmp_path).read_text()
    assert "No message was noted" in text and "no column &#39;age&#39;" in text


def test_a_simulation_is_called_one(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    record = json.loads((folder_of("troubled") / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"simulation": True}))
    assert "<h1>breast-cancer on lab, simulated</h1>" in report.write(tmp_path).read_text()


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_a_folder_without_a_run_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match=rf"{tmp_path}.* (holds no run\.json|is no record of a run)"):
        report.write(tmp_path)


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _numbers(page: Page) -> dict[tuple[str, str, str, str], float | None]:
    found = {}
    for (number, phase, site, metric), value in page.evaluate(_NUMBERS):
        found[number, phase, site, metric] = None if value is None else float(value)
    return found


def _inside(lane: Any) -> bool:
    return bool(
        lane.evaluate(
            "lane => { const box = lane.getBoundingClientRect(); return [...lane.querySelectorAll('rect')].every(one =>"
            " { const its = one.getBoundingClientRect();"
            " return its.left >= box.left - 1 && its.right <= box.right + 1; }); }"
        )
    )


# Reads the tables as they are shown: round, phase, site and metric to the exact value.
_NUMBERS = """() => {
  const found = [];
  for (const table of document.querySelectorAll('table.numbers')) {
    const columns = [...table.querySelectorAll('thead th.column')].map(one => one.textContent);
    const phase = table.closest('details')?.querySelector('summary b').textContent.replace(', each site', '');
    for (const row of table.querySelectorAll('tbody tr')) {
      const heads = [...row.querySelectorAll('th')].map(one => one.textContent);
      [...row.querySelectorAll('td')].forEach((cell, index) => {
        if (!cell.textContent) return;
        const [of, metric] = phase ? [phase, columns[index]] : columns[index].split(/ (.*)/);
        const exact = cell.querySelector('data');
        found.push([[heads[0], of, heads[1] ?? '', metric], exact ? exact.value : null]);
      });
    }
  }
  return found;
}"""
_OUTSIDE = """() => [...document.body.querySelectorAll('*')]
  .filter(one => !one.closest('svg') && !one.closest('.wide') && one.clientWidth)
  .filter(one => getComputedStyle(one).display != 'inline')
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.outerHTML.slice(0, 80))"""
_CURVES_OUTSIDE = """() => [...document.querySelectorAll('svg.chart')].flatMap(chart => {
  const size = chart.viewBox.baseVal;
  return [...chart.querySelectorAll('path, circle, rect, text')].map(one => ({one, box: one.getBBox()}))
    .filter(({box}) => !(box.x >= -4 && box.x + box.width <= size.width + 4 &&
      box.y >= -4 && box.y + box.height <= size.height + 4))
    .map(({one}) => one.outerHTML.slice(0, 120));
})"""
_LOOKS = """() => [...document.querySelectorAll('figure')[0].querySelectorAll('g')].slice(0, 8).map(line => {
  const marker = line.querySelector('circle, rect, path:not(.line)');
  const shape = marker.tagName + (marker.getAttribute('d') ?? '').replace(/[-0-9.,]+/g, '');
  return getComputedStyle(line.querySelector('.line')).strokeDasharray + shape;
})"""
_COLOUR = """
const luminance = text => {
  const [r, g, b] = text.match(/[0-9.]+/g).map(Number).map(one => one / 255)
    .map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = one => {
  for (let each = one; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (colour != 'rgba(0, 0, 0, 0)') return colour;
  }
  return 'rgb(255, 255, 255)';
};
const ratio = (a, b) => {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
"""
_CONTRASTS = f"""() => {{ {_COLOUR}
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {{
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || one.closest('title, desc')) continue;
    const style = getComputedStyle(one);
    const colour = one.closest('svg') ? style.fill : style.color;
    found.push({{text: walker.currentNode.textContent.slice(0, 40), ratio: ratio(colour, behind(one))}});
  }}
  return found;
}}"""
_STROKES = f"""() => {{ {_COLOUR}
  const found = [];
  for (const one of document.querySelectorAll('.chart .line')) {{
    found.push({{what: 'line', ratio: ratio(getComputedStyle(one).stroke, behind(one))}});
  }}
  for (const what of ['failure', 'missing']) for (const one of document.querySelectorAll('.lane rect.' + what)) {{
    found.push({{what, ratio: ratio(getComputedStyle(one).stroke, behind(one))}});
  }}
  for (const what of ['train', 'evaluate']) for (const one of document.querySelectorAll('.lane rect.' + what)) {{
    found.push({{what, ratio: ratio(getComputedStyle(one).fill, behind(one))}});
  }}
  return found;
}}"""
