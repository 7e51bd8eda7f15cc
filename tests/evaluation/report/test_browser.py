"""The report in a real browser: headless Chromium, driven by Playwright."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from captum_scorecam.evaluation import write_report
from tests.support.browser import headless_browser
from tests.support.evaluation_run import HOSTILE, N_IMAGES, make_records, write_run

pytestmark = pytest.mark.slow

Scheme: TypeAlias = Literal["light", "dark"]

DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {hostile: write_report(write_run(folder / str(hostile), hostile=hostile)) for hostile in (False, True)}


class Visit:
    """Opens pages; at the end, nothing may have been logged and nothing but the file requested."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints: list[str] = []

    def __call__(self, report: Path, viewport: ViewportSize = DESK, scheme: Scheme = "light") -> Page:
        context = self.browser.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._check(request.url, report))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.goto(report.as_uri())
        return page

    def _check(self, url: str, report: Path) -> None:
        if url != report.as_uri() and not url.startswith("data:"):
            self.complaints.append(f"requested {url}")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    for context in browser.contexts:
        context.close()
    assert visit.complaints == []


def shown_items(page: Page) -> list[int]:
    """The numbers of the images in the gallery, in the order in which they are shown."""
    return [int(item.get_attribute("data-item") or "") for item in page.locator(".item:visible").all()]


def values(metric: str, method: str) -> dict[int, float]:
    found = {record.index: record.values.get(metric) for record in make_records() if record.method == method}
    return {index: value for index, value in found.items() if value is not None}


def focused(page: Page) -> Locator:
    return page.locator(":focus")


def width(element: Locator) -> float:
    box = element.bounding_box()
    assert box is not None
    return box["width"]


def numbers(table: Locator) -> list[float]:
    return [float(cell.get_attribute("data-value") or "nan") for cell in table.locator("td:nth-child(5)").all()]


def test_images_are_sorted_by_any_metric_of_any_method(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    assert shown_items(page) == list(range(N_IMAGES))
    page.select_option("#sort-key", "insertion")
    of_reference = values("insertion", "score_cam")
    assert shown_items(page) == sorted(of_reference, key=lambda index: of_reference[index])
    page.select_option("#sort-method", "rise")
    page.click("#sort-direction")
    of_rise = values("insertion", "rise")
    assert shown_items(page) == [*sorted(of_rise, key=lambda index: -of_rise[index]), 7]  # 7 has no value: the last
    page.select_option("#sort-key", "order")
    assert shown_items(page) == list(range(N_IMAGES))


def test_images_are_sorted_by_disagreement_and_by_the_difference_in_a_metric(
    visit: Visit, reports: dict[bool, Path]
) -> None:
    page = visit(reports[False])
    page.select_option("#sort-key", "disagreement")
    shown = [float(text) for text in page.locator(".item .disagreement b").all_text_contents()]
    assert len(shown) == N_IMAGES
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[-1] + 0.1
    page.select_option("#sort-key", "deletion")
    page.select_option("#sort-method", "")
    of_methods = [values("deletion", method) for method in ("grad_cam", "score_cam", "rise")]
    ranges = {}
    for index in range(N_IMAGES):
        present = [found[index] for found in of_methods if index in found]
        ranges[index] = max(present) - min(present)
    assert shown_items(page) == sorted(ranges, key=lambda index: ranges[index])


def test_images_are_filtered_by_class_and_by_correct_and_wrong(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    page.select_option("#filter-correct", "false")
    assert shown_items(page) == [0, 5, 10]
    assert page.inner_text("#status") == "3 of 12 images"
    page.select_option("#filter-class", "tiger cat (1)")
    assert shown_items(page) == [0]
    page.select_option("#filter-correct", "true")
    assert shown_items(page) == [1, 9]
    page.select_option("#filter-class", "lakeside (2)")
    page.select_option("#filter-correct", "false")
    assert shown_items(page) == [5]
    page.select_option("#filter-class", "tench (0)")
    assert shown_items(page) == []
    expect(page.locator("#empty")).to_be_visible()


def test_an_image_is_enlarged_and_arrow_keys_move_in_it(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    page.locator(".item").nth(1).locator("button.shot").nth(1).click()
    viewer = page.locator("#viewer")
    expect(viewer).to_be_visible()
    assert page.inner_text("#viewer-method") == "Grad-CAM"
    name = page.inner_text("#viewer-name")
    assert name == page.locator(".item h3").nth(1).text_content()
    assert width(viewer.locator(".explained .shot")) > 1.5 * width(page.locator(".tile .shot").nth(1))
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-method") == "Score-CAM"
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#viewer-name") == page.locator(".item h3").nth(2).text_content()
    assert page.inner_text("#viewer-method") == "Score-CAM"
    assert "Insertion" in page.inner_text("#viewer-values")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".item").nth(2).locator("button.shot").nth(2)).to_be_focused()


def test_the_gallery_is_one_stop_of_the_tab_key_and_works_without_a_mouse(
    visit: Visit, reports: dict[bool, Path]
) -> None:
    page = visit(reports[False])
    assert page.locator("button.shot[tabindex='0']").count() == 1
    page.locator("#opacity").focus()
    page.keyboard.press("Tab")
    assert focused(page).get_attribute("data-tile") == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    second = page.locator(".item").nth(1)
    expect(second.locator("button.shot").nth(2)).to_be_focused()
    page.keyboard.press("Enter")
    assert page.inner_text("#viewer-method") == "Score-CAM"
    page.keyboard.press("Escape")
    expect(second.locator("button.shot").nth(2)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".item").first.locator("button.shot").nth(1)).to_be_focused()
    assert page.locator("button.shot[tabindex='0']").count() == 1


def test_a_table_is_sorted_by_its_headings_and_says_so(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    table = page.locator("table.sortable").first
    head = table.locator("thead th").nth(4)
    original = numbers(table)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers(table) == sorted(original)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers(table) == sorted(original, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    assert numbers(table) == original


def test_maps_are_coloured_and_their_opacity_follows_the_slider(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    map_ = page.locator(".item .map").first
    assert page.evaluate("element => element.naturalWidth", map_.element_handle()) == 64
    page.locator("#opacity").fill("20")
    expect(map_).to_have_css("opacity", "0.2")
    page.locator("#opacity").fill("100")
    page.locator("#items").scroll_into_view_if_needed()
    colours = page.locator(".item button.shot").nth(1).screenshot()
    page.locator("#opacity").fill("0")
    assert page.locator(".item button.shot").nth(1).screenshot() != colours


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_colours_follow_the_system_and_the_toggle_and_can_be_read(
    visit: Visit, reports: dict[bool, Path], scheme: Scheme
) -> None:
    page = visit(reports[False], scheme=scheme)
    system = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (brightness(system) > 0.5) == (scheme == "light")
    for selector in ("h1", ".lead", ".note", ".interval", ".worse .mark", ".best .mark", ".chart svg text", "a"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    other = "dark" if scheme == "light" else "light"
    while page.inner_text("#theme") != f"Theme: {other}":
        page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != system


CONTRAST = """selector => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const luminance = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const background = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? background(element.parentElement) : colour;
  };
  return Math.min(...[...document.querySelectorAll(selector)].map(element => {
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [luminance(ink), luminance(background(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""


def brightness(colour: str) -> float:
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3 / 255


@pytest.mark.parametrize("hostile", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_phone_shows_everything_without_scrolling_sideways(
    visit: Visit, reports: dict[bool, Path], hostile: bool
) -> None:
    page = visit(reports[hostile], viewport=PHONE)
    for fold in page.locator("details").all():
        fold.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    page.locator(".item").nth(1).locator("button.shot").nth(2).click()
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    assert page.evaluate("[viewer.scrollWidth <= viewer.clientWidth]") == [True]


def test_hostile_names_are_shown_and_run_nothing(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[True])
    assert page.locator("img[src='x']").count() == 0
    assert page.locator(".item h3").nth(1).text_content() == HOSTILE
    page.locator(".item").nth(1).locator("button.shot").nth(1).click()
    assert page.inner_text("#viewer-name") == HOSTILE
    page.keyboard.press("Escape")
    page.select_option("#filter-class", f"{HOSTILE} (1)")
    assert shown_items(page) == [0, 1, 9]


def test_without_scripts_tables_curves_and_pictures_are_there(browser: Browser, reports: dict[bool, Path]) -> None:
    context = browser.new_context(java_script_enabled=False, viewport=DESK)
    page = context.new_page()
    page.goto(reports[False].as_uri())
    expect(page.locator("table").first).to_be_visible()
    expect(page.locator(".chart svg").first).to_be_visible()
    expect(page.locator(".item .map").first).to_be_visible()
    expect(page.locator("#controls")).to_be_hidden()
    context.close()


def table_of(page: Page, number: int = 0, names: tuple[str, ...] = ("value", "low", "high", "n")) -> list[list[str]]:
    """A table as a spreadsheet has it: the numbers of each metric."""
    rows = []
    for row in page.locator("table.estimates").nth(number).locator("tbody tr").all():
        cells = [row.locator("th").inner_text().strip()]
        for cell in row.locator("td").all():
            cells += [cell.get_attribute(f"data-{name}") or "" for name in names]
        rows.append(cells)
    return rows


def test_a_table_is_downloaded_as_csv(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    with page.expect_download() as download:
        page.locator("button.download").first.click()
    assert download.value.suggested_filename == "means_of_each_metric_by_method.csv"
    head, *rows = csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8")))
    assert head[:5] == ["Method", "Average drop, %", *(f"Average drop, %: {name}" for name in ("low", "high", "n"))]
    assert rows == table_of(page)


def test_differences_are_downloaded_with_their_evidence(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    with page.expect_download() as download:
        page.locator("button.download").nth(1).click()
    head, *rows = csv.reader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8")))
    assert head[1:7] == ["Average drop, %", *(f"Average drop, %: {name}" for name in ("low", "high", "n", "d", "p"))]
    assert rows == table_of(page, 1, ("value", "low", "high", "n", "d", "p"))
    assert all(0 <= float(row[6]) <= 1 for row in rows)


def test_a_table_is_copied_for_a_spreadsheet(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False])
    copy = page.locator("button.copy").first
    copy.click()
    expect(copy).to_have_text("Copied")
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), {id: 'pasted'}))")
    page.locator("#pasted").focus()
    page.keyboard.press("Control+V")
    head, *rows = [line.split("\t") for line in page.locator("#pasted").input_value().split("\n")]
    assert head[0] == "Method"
    assert rows == table_of(page)


def brightness_of_edge(element: Locator) -> float:
    """The brightness of the right edge of an element, between its rules."""
    picture = Image.open(io.BytesIO(element.screenshot())).convert("L")
    return float(np.median(np.asarray(picture)[:, -2]))


def test_a_phone_shows_where_a_table_goes_on(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False], viewport=PHONE)
    table = page.locator(".scroll").first
    assert page.evaluate("element => element.scrollWidth > element.clientWidth", table.element_handle())
    before = brightness_of_edge(table)
    table.evaluate("element => { element.scrollLeft = element.scrollWidth; }")
    assert before + 20 < brightness_of_edge(table)


PAPER = {False: ViewportSize(width=687, height=1016), True: ViewportSize(width=1016, height=687)}  # A4 in margins


@pytest.mark.parametrize("many", [False, True])
def test_tables_fit_on_paper(visit: Visit, reports: dict[bool, Path], many: bool) -> None:
    page = visit(reports[False], viewport=PAPER[many])
    if many:
        page.evaluate(WIDENED)
    pages = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", page.pdf(prefer_css_page_size=True))
    assert {float(width) < float(height) for width, height in pages} == ({True, False} if many else {True})
    page.emulate_media(media="print")
    for table in page.locator(".scroll").all():
        assert table.evaluate("element => element.scrollWidth <= element.clientWidth")


def test_printed_values_keep_their_labels_and_settings_are_open(visit: Visit, reports: dict[bool, Path]) -> None:
    page = visit(reports[False], viewport=PAPER[False])
    page.emulate_media(media="print")
    values = page.locator(".tile dl div:visible")
    assert values.count() > 0
    for value in values.all():
        label, number = value.locator("dt").bounding_box(), value.locator("dd").bounding_box()
        assert label is not None
        assert number is not None
        assert label["width"] > 1
        assert label["x"] + label["width"] <= number["x"] + 1
    for text in ("images digest", "threads", "torch"):
        expect(page.locator("#settings dt", has_text=text).first).to_be_visible()


# The first table with fourteen metrics.
WIDENED = """() => {
  const scroll = document.querySelector(".scroll");
  for (const row of scroll.querySelectorAll("tr")) {
    while (row.cells.length < 15) row.append(row.cells[row.cells.length - 1].cloneNode(true));
  }
  scroll.classList.add("many");
}"""
