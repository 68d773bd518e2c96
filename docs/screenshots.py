"""Makes the README's pictures from built-in data (`make screenshots`): a report, and the tour."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from sklearn.datasets import load_breast_cancer

from torchlogit import LogisticRegression

IMAGES = Path(__file__).parent / "images"
SIZE = {"width": 1280, "height": 800}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def report(browser: Browser) -> None:
    """The first screen of a report."""
    data = load_breast_cancer(as_frame=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        LogisticRegression().fit(data.data, data.target).report(file, data.data, data.target)
        page = browser.new_page(viewport=SIZE)
        page.goto(file.as_uri())
        page.screenshot(path=IMAGES / "report.png")


def tour(browser: Browser) -> None:
    """Chapter 3, on the way back."""
    command = [sys.executable, "-m", "torchlogit", "tour", "--no-browser"]
    page = browser.new_page(viewport=SIZE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            page.goto(next(server.stdout).split()[4])
            page.get_by_test_id("tour-loss-6").wait_for(timeout=60_000)
            for _ in range(2):
                page.get_by_test_id("tour-forth-3").get_by_role("button").click()
            page.locator('[data-testid="tour-graph-3"][data-stage="backward"]').wait_for()
            page.locator("#chapter-3").evaluate("title => title.scrollIntoView()")
            page.screenshot(path=IMAGES / "tour.png")
        finally:
            page.close()
            server.kill()


def main() -> None:
    """Both, in one browser."""
    IMAGES.mkdir(exist_ok=True)
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        report(browser)
        tour(browser)
        browser.close()


if __name__ == "__main__":
    main()
