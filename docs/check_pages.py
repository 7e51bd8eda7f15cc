"""Opens the built pages in headless Chromium as a reader would, and fails with a list of what is wrong on them.

Run: python docs/check_pages.py docs/_build/html [--screenshots FOLDER]. Needs playwright and a Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse

from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, Request, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")
VIEWS = {"desktop": (1280, 900, "light"), "desktop-dark": (1280, 900, "dark"), "phone": (390, 844, "dark")}
NOT_READ = ("genindex", "py-modindex", "search", "_modules")
SEARCHED = ("insertion", "IntegratedGradients", "LayerCAM", "timm", "YOLO", "Hugging Face")
INSTALLS = "%pip install"

LOOK = Path(__file__).with_name("check_pages.js").read_text(encoding="utf-8")  # what a browser finds wrong with a page


def main() -> int:
    """Checks the pages; the exit status is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="the folder with index.html")
    parser.add_argument("--screenshots", type=Path, help="where to keep a picture of each page")
    arguments = parser.parse_args()
    pages = sorted(path.relative_to(arguments.root).as_posix() for path in arguments.root.rglob("*.html"))
    if "index.html" not in pages:
        raise SystemExit(f"Expected pages in {arguments.root}, but got no index.html there.")
    wrong = [
        *broken_links(arguments.root, pages),
        *wrong_beside_pages(arguments.root, pages),
        *seen(arguments.root, pages, arguments.screenshots),
    ]
    print(*wrong, f"{len(pages)} pages, {len(wrong)} faults", sep="\n")
    return 1 if wrong else 0


def broken_links(root: Path, pages: list[str]) -> Iterator[str]:
    """Follows every link, picture and script within the pages to its file and its anchor."""
    soups = {page: BeautifulSoup((root / page).read_text(encoding="utf-8"), "html.parser") for page in pages}
    anchors = {page: {str(tag["id"]) for tag in soup.find_all(id=True)} for page, soup in soups.items()}
    for page, soup in ((page, soups[page]) for page in pages if not page.startswith(NOT_READ)):
        links = {str(tag.get("href") or tag.get("src")) for tag in soup.find_all(["a", "img", "link", "script"])}
        for link in sorted(links - {"None", "#"}):
            if urlparse(link).scheme:
                continue
            url = urlparse(urljoin(page, link))
            target, anchor = unquote(url.path), unquote(url.fragment)
            if not (root / target).is_file():
                yield f"{page}: no file {target}"
            elif anchor and anchor not in anchors.get(target, {anchor}):
                yield f"{page}: no anchor {target}#{anchor}"


def wrong_beside_pages(root: Path, pages: list[str]) -> Iterator[str]:
    """Checks that llms.txt leads to every page that people read, and that notebooks begin with their installation."""
    listed = re.findall(r"\]\(([^)]+)\)", (root / "llms.txt").read_text(encoding="utf-8"))
    read = {page for page in pages if not page.startswith(NOT_READ)} - {"index.html"}
    yield from (f"llms.txt: {page} is missing or no page" for page in sorted(read ^ set(listed)))
    notebooks = sorted(root.glob("_downloads/*/*.ipynb"))
    if not notebooks:
        yield "no notebooks"
    for path in notebooks:
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        if first["cell_type"] != "code" or INSTALLS not in "".join(first["source"]):
            yield f"{path.name}: no installation in the first cell"


def seen(root: Path, pages: list[str], screenshots: Path | None) -> Iterator[str]:
    """Opens every page that people read, on a desktop and a phone, light and dark, and searches."""
    read = [page for page in pages if not page.startswith(NOT_READ)]
    with served(root) as address, sync_playwright() as playwright:
        executable = next(filter(None, map(shutil.which, BROWSERS)), None)
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        for view in VIEWS:
            for name, fault in seen_in(browser, view, address, read, screenshots):
                yield f"{name} ({view}): {fault}"
        for words in SEARCHED:
            yield from search(browser, address, words)
        browser.close()


def seen_in(
    browser: Browser, view: str, address: str, pages: list[str], screenshots: Path | None
) -> Iterator[tuple[str, str]]:
    """Yields each page with each of its faults in a window of some size, light or dark."""
    width, height, scheme = VIEWS[view]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    tab = context.new_page()
    faults = watched(tab, address)
    for page in pages:
        tab.goto(f"{address}/{page}", wait_until="load")
        tab.evaluate("document.querySelectorAll('img').forEach((e) => (e.loading = 'eager'))")
        tab.wait_for_function("[...document.images].every((e) => e.complete)")
        found = [*faults, *(f"{kind}: {what}" for kind, each in tab.evaluate(LOOK).items() for what in each)]
        faults.clear()
        yield from ((page, fault) for fault in found)
        if screenshots:
            tab.screenshot(path=screenshots / view / page.replace(".html", ".png"), full_page=True)
    context.close()


def watched(tab: Page, address: str) -> list[str]:
    """Returns a list to which errors of scripts, failed requests and requests to other hosts are added."""
    faults: list[str] = []
    tab.on("console", lambda message: faults.append(f"console: {message.text}") if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(f"script: {error}"))
    tab.on("requestfailed", lambda request: None if left(request) else faults.append(f"failed: {request.url}"))
    tab.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else faults.append(request.url)
    )
    return faults


def left(request: Request) -> bool:
    """Tells whether a request ended because the next page was opened."""
    return request.failure == "net::ERR_ABORTED"


def search(browser: Browser, address: str, words: str) -> Iterator[str]:
    """Searches for words as a reader does, who types them into the field."""
    tab = browser.new_page()
    faults = watched(tab, address)
    tab.goto(f"{address}/index.html")
    tab.fill("input[name=q] >> nth=0", words)
    tab.press("input[name=q] >> nth=0", "Enter")
    tab.wait_for_selector("#search-results p.search-summary", timeout=20_000)
    tab.wait_for_timeout(1000)
    found = tab.locator("#search-results ul.search li").count()
    yield from (f"search: {fault}" for fault in faults)
    if found == 0:
        yield f"search: no page found for {words!r}"
    tab.close()


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serves a folder on a free port of this machine."""
    handler = functools.partial(QuietHandler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Keeps quiet."""


if __name__ == "__main__":
    sys.exit(main())
