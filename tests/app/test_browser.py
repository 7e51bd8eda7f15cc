"""The page in a real browser: headless Chromium, driven by Playwright, by what a person does."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.app.conftest import TINY, Serving
from tests.support.tiny_classifier import picture

pytestmark = pytest.mark.slow

Scheme: TypeAlias = Literal["light", "dark"]
PATIENCE = 90_000  # milliseconds; on a busy machine, each step takes many times as long
DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
ROOM_BELOW_THE_UPLOADS_TEXT = """() => {
  const field = document.getElementById("upload"), text = document.createRange();
  const nodes = document.createTreeWalker(field, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode() && !nodes.currentNode.textContent.includes("Click to Upload"));
  text.selectNodeContents(nodes.currentNode);
  return field.getBoundingClientRect().bottom - text.getBoundingClientRect().bottom;
}"""
SCREENSHOTS = os.environ.get("CAPTUM_SCORECAM_SCREENSHOTS")  # a folder to keep them in


class Visit:
    """Opens the page; at the end, nothing may have been logged and no other host asked."""

    def __init__(self, browser: Browser, serving: Serving) -> None:
        self.browser, self.serving = browser, serving
        self.complaints: list[str] = []

    def __call__(self, viewport: ViewportSize = DESK, scheme: Scheme = "light") -> Page:
        context = self.browser.new_context(viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._check(request.url))
        page.goto(self.serving.address)
        says(page, "Choose what to explain.")
        return page

    def _check(self, url: str) -> None:
        if not url.startswith((self.serving.address, "data:", "blob:")):
            self.complaints.append(f"requested {url}")


@pytest.fixture
def visit(browser: Browser, serving: Serving) -> Iterator[Visit]:
    visit = Visit(browser, serving)
    yield visit
    for context in browser.contexts:
        context.close()
    assert visit.complaints == []


def says(page: Page, text: str) -> None:
    expect(page.locator("#status .status")).to_contain_text(text, timeout=PATIENCE)


def maps(page: Page) -> int:
    return page.locator("#maps figure.map img").count()


def choose_the_demo_model(page: Page) -> None:
    page.locator("#model input").click()
    page.get_by_role("option", name="efficientnet_lite0").click()
    expect(page.locator("#seen figcaption")).to_contain_text("efficientnet_lite0", timeout=PATIENCE)


def start_a_long_run(page: Page) -> None:
    choose_the_demo_model(page)
    page.locator("#methods label", has_text="Mask").click()
    page.click("#explain")
    expect(page.locator("#status progress")).to_be_visible(timeout=PATIENCE)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drop(page: Page, name: str, content: bytes) -> None:
    files = [{"name": name, "mimeType": "image/png", "buffer": content}]
    page.locator("#upload input[type=file]").set_input_files(files)  # type: ignore[arg-type]


def test_a_sample_is_explained_compared_and_downloaded(visit: Visit) -> None:
    page = visit()
    assert page.locator("#seen .top li").count() == 4
    page.click("#explain")
    says(page, "Done.")
    assert page.locator("#maps h3").all_inner_texts() == ["Score-CAM features", "Grad-CAM features"]
    assert maps(page) == 6
    captions = page.locator("#maps figcaption").all_inner_texts()
    names = [caption.split("\n")[0].partition(" ")[0] for caption in captions[:2]]
    assert captions[2].startswith(f"{names[0]} − {names[1]}\n")
    assert "exact · 5 of 5 masks" in captions[0]
    with page.expect_download() as downloading:
        page.locator("#maps a[download$='.npy']").first.click()
    values = np.load(downloading.value.path())
    assert values.shape == (21, 21)
    assert downloading.value.suggested_filename.startswith("score_cam-features-")
    page.locator("#maps details summary").click()
    expect(page.locator("#maps pre")).to_contain_text("skimage.data.chelsea()")
    page.locator("#maps figure.map button").first.click()
    expect(page.locator("#channels h3")).to_contain_text("Strongest channels of features")
    expect(page.locator("#channels h3")).to_be_in_viewport()
    assert page.locator("#channels img").count() == 5
    assert visit.serving.uploads() == []


def test_a_click_before_the_new_pictures_classes_have_come_explains_those(visit: Visit) -> None:
    page = visit()
    choose_the_demo_model(page)
    expect(page.locator("#classes label").first).to_contain_text("cat")
    page.locator("#sample label", has_text="Coffee").click()
    page.click("#explain")
    says(page, "Done.")
    chosen = page.locator("#classes label:has(input:checked)").all_inner_texts()
    titles = page.locator("#maps figcaption b").all_inner_texts()[:2]
    assert titles == [label.partition(" · ")[0] for label in chosen]
    assert not any("cat" in title for title in titles)


def test_another_picture_ends_the_run(visit: Visit) -> None:
    page = visit()
    start_a_long_run(page)
    page.locator("#sample label", has_text="Coffee").click()
    says(page, "Choose what to explain.")
    expect(page.locator("#classes label").first).not_to_contain_text("cat")
    assert maps(page) == 0


def test_another_model_ends_the_run(visit: Visit) -> None:
    page = visit()
    start_a_long_run(page)
    field = page.locator("#model input")
    field.fill(TINY)
    field.press("Enter")
    expect(page.locator("#seen figcaption")).to_contain_text(TINY, timeout=PATIENCE)
    says(page, "Choose what to explain.")
    assert maps(page) == 0


def test_an_upload_is_explained_with_other_classes_and_methods(visit: Visit) -> None:
    page = visit()
    drop(page, "my 'cat' {1}.png", png(picture(1)[0]))
    expect(page.locator("#sample input:checked")).to_have_count(0)
    says(page, "Choose what to explain.")
    assert visit.serving.uploads() == []
    for box in reversed(page.locator("#classes input:checked").all()):
        box.uncheck()
    page.locator("#classes label", has_text="white").click()
    page.locator("#methods label", has_text="RISE").click()
    page.click("#explain")
    says(page, "Done.")
    assert page.locator("#maps h3").all_inner_texts()[0].startswith("white")
    assert maps(page) == 3
    page.locator("#maps details summary").click()
    expect(page.locator("#maps pre")).to_contain_text("""read_image(Path("my 'cat' {1}.png"))""")
    page.locator("#sample label", has_text="Rocket").click()
    expect(page.locator("#maps figure.map")).to_have_count(0)


RANDOM = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"no picture", "Expected an image file, but 'text.png' can't be read as one"),
        ("empty.png", b"", "Expected an image file"),
        ("pixel.png", png(Image.new("RGB", (1, 1), "red")), "Choose what to explain."),
        ("clear.png", png(Image.fromarray(RANDOM)), "Choose what to explain."),
        ("deep.png", png(Image.fromarray(RANDOM[..., 0].astype(np.uint16) * 257)), "Choose what to explain."),
        ("huge.png", png(Image.new("1", (9000, 9000))), "at most 40 megapixels, but got 9000×9000 pixels"),
        ("bomb.png", png(Image.new("1", (20000, 20000))), "Expected an image file, but 'bomb.png' can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith("png") else "",
)
def test_odd_files(visit: Visit, name: str, content: bytes, message: str) -> None:
    page = visit()
    page.click("#explain")
    says(page, "Done.")
    drop(page, name, content)
    says(page, message)
    assert visit.serving.uploads() == []
    page.click("#explain")
    says(page, "Done.")
    assert maps(page) >= 2


def test_a_file_that_is_too_large_is_refused_and_the_page_goes_on(visit: Visit) -> None:
    page = visit()
    drop(page, "large.png", bytes(21 * 2**20))
    expect(page.get_by_text("exceed the maximum allowed size")).to_be_visible()
    visit.complaints.clear()  # the browser logs the status that refuses the file
    assert visit.serving.uploads() == []
    page.click("#explain")
    says(page, "Done.")


def test_a_run_is_cancelled_and_another_one_started(visit: Visit) -> None:
    page = visit()
    start_a_long_run(page)
    expect(page.locator("#status progress[max='200']")).to_be_visible(timeout=PATIENCE)
    page.click("#cancel")
    says(page, "Cancelled.")
    finished = maps(page)
    assert finished >= 6  # Score-CAM's and Grad-CAM's
    expect(page.locator("#maps a[download$='.npy']")).to_have_count(finished)
    expect(page.locator("#maps [aria-busy]")).to_have_count(0)
    page.locator("#methods label", has_text="Mask").click()
    page.click("#explain")
    says(page, "Done.")
    assert maps(page) == 6
    assert "±" not in page.locator("#maps figcaption").first.inner_text()


def test_a_model_that_does_not_exist_is_named_and_the_one_before_stays(visit: Visit) -> None:
    page = visit()
    field = page.locator("#model input")
    field.fill("resnet81")
    field.press("Enter")
    says(page, "Closest matches: resnet18")
    expect(field).to_have_value(TINY)
    page.click("#explain")
    says(page, "Done.")


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_shown_without_scrolling_sideways(visit: Visit, viewport: ViewportSize, scheme: Scheme) -> None:
    page = visit(viewport, scheme)
    if SCREENSHOTS:
        choose_the_demo_model(page)
    assert page.evaluate(ROOM_BELOW_THE_UPLOADS_TEXT) >= 10
    page.click("#explain")
    says(page, "Done.")
    page.locator("#maps figure.map button").first.click()
    expect(page.locator("#channels h3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for picture_shown in page.locator("#maps img, #channels img").all():
        box = picture_shown.bounding_box()
        assert box is not None
        assert 100 <= box["width"] <= viewport["width"] - box["x"]
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(body[body.index("(") + 1 :].split(",")[0])
    assert (red > 127) == (scheme == "light")
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{viewport['width']}-{scheme}.png", full_page=True)
