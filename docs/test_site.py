"""The site that was built, as a browser and a reader with a phone have it.

    pytest docs/test_site.py --site build/site [--screenshots DIRECTORY]

It needs the extra `docs`. Without Chromium and its driver (Debian: chromium, chromium-driver) what
needs a browser is skipped; with NO_SKIPS=1 that is a failure.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

webdriver = pytest.importorskip("selenium.webdriver")

PHONE, DESK = (375, 800), (1300, 1000)
PAGES = ["index.html", "howto/logs.html", "reference/api.html", "explanation/why-two-forks.html"]
PAGES += ["explanation/locks.html", "tutorials/first-daemon.html", "project/benchmarks.html"]
# Chromium asks its makers' hosts all kinds of things otherwise.
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
]
LOADED = (
    "return [...document.images].filter(i => i.offsetParent && !i.naturalWidth).map(i => i.src)"
)
SHOWN = "return [...document.images].filter(i => i.offsetParent).length"
WIDTH = "return document.documentElement.scrollWidth"
# Elements that stand out of the window, but for those in what may be scrolled by itself.
WIDE = """return [...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  return e.offsetParent && box.width && box.right > innerWidth + 1 &&
    !e.closest("pre, .table-wrapper, .sidebar-drawer, .toc-drawer");
}).map(e => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 60))"""


class Quiet(SimpleHTTPRequestHandler):
    """Without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--site")
    assert given, "--site DIRECTORY is missing"
    return Path(given).absolute()


@pytest.fixture(scope="session")
def site(root: Path) -> Iterator[str]:
    """The site's address, on this machine."""
    handler = partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        if os.environ.get("NO_SKIPS"):
            pytest.fail("chromium and chromium-driver are missing")
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def show(browser: webdriver.Chrome, size: tuple[int, int], colour: str) -> None:
    """Be a screen of that size, for somebody who likes it light or dark."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": colour}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.mark.parametrize("colour", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_pictures_and_fits_a_desk_and_a_phone(
    browser: webdriver.Chrome, site: str, page: str, colour: str, request: pytest.FixtureRequest
) -> None:
    keep = request.config.getoption("--screenshots")
    for size in (DESK, PHONE):
        show(browser, size, colour)
        browser.get(site + page)
        assert "daemon_context" in browser.title
        assert browser.execute_script(LOADED) == []
        if keep:
            Path(keep).mkdir(parents=True, exist_ok=True)
            name = f"{page.replace('/', '-').removesuffix('.html')}-{colour}-{size[0]}.png"
            browser.save_screenshot(str(Path(keep) / name))
        assert browser.execute_script(WIDTH) <= size[0]
        assert browser.execute_script(WIDE) == []


@pytest.mark.parametrize("colour", ["light", "dark"])
def test_of_each_picture_the_one_in_the_reader_s_colours_is_shown(
    browser: webdriver.Chrome, site: str, colour: str
) -> None:
    show(browser, DESK, colour)
    browser.get(f"{site}explanation/locks.html")
    assert browser.execute_script(SHOWN) == 1
    shown = browser.execute_script(
        "return [...document.images].filter(i => i.offsetParent).map(i => i.src)"
    )
    assert [name.rpartition("-")[2] for name in shown] == [f"{colour}.svg"]


def test_the_search_finds_logrotate(browser: webdriver.Chrome, site: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, DESK, "light")
    browser.get(site)
    box = browser.find_element(By.NAME, "q")
    box.send_keys("logrotate\n")
    found = WebDriverWait(browser, 20).until(
        lambda b: b.find_elements(By.CSS_SELECTOR, "#search-results li a")
    )
    assert any("howto/logs.html" in (link.get_attribute("href") or "") for link in found)


class Anchors(HTMLParser):
    """The links of a page, and the places in it that a link may name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Of every element."""
        for name, value in attributes:
            if name == "id" and value:
                self.places.add(value)
            if name in ("href", "src") and value and not value.startswith(("http", "data:")):
                self.links.add(value)


def test_every_internal_link_leads_somewhere(root: Path) -> None:
    pages = {page: Anchors(page.read_text()) for page in root.rglob("*.html")}
    assert len(pages) > 30
    broken = []
    for page, anchors in pages.items():
        for link in anchors.links:
            path, place = urldefrag(urljoin(page.as_uri(), link.partition("?v=")[0]))
            target = Path(unquote(path.removeprefix("file://")))
            known = pages[target].places if target in pages else set()
            if not target.exists() or (place and target in pages and unquote(place) not in known):
                broken.append(f"{page.relative_to(root)}: {link}")
    assert broken == []
