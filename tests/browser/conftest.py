"""A real browser on a real studio: the command itself serves, Debian's Chromium looks.

All of it is skipped, with the reason, where Chromium, Playwright or Gradio is missing; with
``AIZHEIMER_BROWSER=required``, as `make` sets it, that is an error. One studio on the embedded model serves all tests;
each is a visitor of its own. ``AIZHEIMER_SCREENSHOTS`` names a folder for pictures of every state.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = float(os.environ.get("AIZHEIMER_BROWSER_PATIENCE", "120"))
"""Seconds that anything may take; a busy machine wants more."""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def missing() -> str:
    """Return what is not installed, or nothing."""
    packages = [name for name in ("playwright", "gradio") if importlib.util.find_spec(name) is None]
    if packages:
        return f"{' and '.join(packages)} not installed: pip install 'aizheimer[studio,browser]'"
    return "" if CHROMIUM else "no Chromium: apt-get install chromium"


def pytest_collection_modifyitems(items):
    """Mark what is here, and skip it where it cannot run."""
    here, reason = Path(__file__).parent, missing()
    if reason and os.environ.get("AIZHEIMER_BROWSER") == "required":
        raise pytest.UsageError(f"the browser tests cannot run: {reason}")
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.enable_socket)
            item.add_marker(pytest.mark.timeout(20 * PATIENCE))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Serve a studio by its command, and return its address; ``AIZHEIMER_STUDIO`` names one that runs already."""
    if running := os.environ.get("AIZHEIMER_STUDIO"):
        yield running
        return
    place = tmp_path_factory.mktemp("studio")
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1", "AIZHEIMER_CACHE": str(place / "cache")}
    command = [sys.executable, "-m", "aizheimer", "studio", "--port", "0", "--folder", str(place / "root")]
    with (place / "log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = server.stdout.readline()
        assert line.startswith("studio"), (place / "log").read_text()
        yield line.split()[1]
    finally:
        server.terminate()
        server.communicate(timeout=30)  # closes the pipe, too: what is left open is a warning, and those are errors
    assert (place / "log").read_text() == "Stop it with Ctrl-C.\n", "the server has complained"


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, gone when its tests are over, for Playwright's event loop is in the way of others.

    Playwright downloads none.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Visit:
    """One visitor at the page."""

    def __init__(self, browser, address, *, width=1240, height=900):
        self.address = address
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(PATIENCE * 1000)
        self.elsewhere, self.errors = [], []
        self.page = self.open()

    def open(self):
        """Open the page, and wait until it can be used."""
        self.page = self.context.new_page()
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(self.address, wait_until="domcontentloaded")
        self.ready()
        return self.page

    def ready(self):
        """Wait until the page has its first news from the server."""
        self.page.locator("#concept textarea, #concept input").first.wait_for()
        self.page.locator("#now .az-now").wait_for()
        self.page.wait_for_timeout(1000)

    def fill(self, name, text):
        """Type into a field."""
        self.page.locator(f"#{name} textarea, #{name} input").first.fill(text)

    def slide(self, name, value):
        """Move a slider to a value, by its number."""
        field = self.page.locator(f"#{name} input[type=number]").first
        field.fill(str(value))
        field.press("Tab")

    def fits(self):
        """Whether nothing sticks out of the page to the right."""
        wide, shown = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        return wide <= shown + 1

    def cut_off(self):
        """Return the first words of tables that are wider than the place they have."""
        return self.page.locator(".az-scroll:visible").evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText.slice(0, 40))"
        )

    def shots_of_both_widths(self, name):
        """Take a picture of the page as it is, and on a telephone, where it must fit."""
        self.shot(name)
        assert self.cut_off() == []
        before = self.page.viewport_size
        self.page.set_viewport_size({"width": 390, "height": 800})
        self.page.wait_for_timeout(300)
        assert self.fits(), name
        assert self.cut_off() == []
        self.shot(f"narrow-{name}")
        self.page.set_viewport_size(before)
        self.page.get_by_role("tab", name="Export", exact=True).locator("visible=true").first.wait_for()

    def tab(self, name):
        """Go to a tab; on a narrow screen the last ones are in a menu."""
        tab = self.page.get_by_role("tab", name=name, exact=True).locator("visible=true")
        if tab.count():
            tab.first.click()
            return
        self.page.locator(".overflow-menu > button").first.click()
        self.page.locator(".overflow-dropdown").get_by_text(name, exact=True).first.click()

    def choose(self, name, option):
        """Choose from a list."""
        self.page.locator(f"#{name} input").first.click()
        self.page.locator(f"#{name} input").first.fill(option)
        self.page.get_by_role("option", name=option, exact=True).click()

    def wait(self, selector, seconds=4 * PATIENCE):
        """Wait for what a job shows in the end."""
        place = self.page.locator(selector)
        deadline = time.monotonic() + seconds
        while not (place.count() and place.first.is_visible()):
            bad = self.page.locator(".az-bad:visible")
            assert not bad.count(), bad.first.inner_text()
            assert time.monotonic() < deadline, f"{selector} did not come: {self.page.locator('#now').inner_text()}"
            self.page.wait_for_timeout(300)
        return place.first

    def drawn(self, selector):
        """Wait until the browser has loaded every picture there, which it does after it has put them on the page."""
        self.page.wait_for_function(
            "selector => [...document.querySelectorAll(selector)].every(image => image.naturalWidth > 0)",
            arg=selector,
        )

    def shot(self, name):
        """Take a picture of the page, if pictures are wanted."""
        if folder := os.environ.get("AIZHEIMER_SCREENSHOTS"):
            self.page.wait_for_timeout(700)
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def _asked(self, request):
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def close(self):
        """Leave; nothing was asked of another server, and no script failed."""
        self.context.close()
        assert self.elsewhere == []
        assert self.errors == []


@pytest.fixture
def visit(browser, address):
    """A visitor whom nobody knows yet."""
    made = Visit(browser, address)
    yield made
    made.close()


@pytest.fixture
def narrow(browser, address):
    """A visitor with a telephone."""
    made = Visit(browser, address, width=390, height=800)
    yield made
    made.close()
