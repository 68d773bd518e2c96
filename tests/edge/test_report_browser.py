"""The report in a real browser, opened from a file, without a network."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from edge.report_cases import SHARED, write

SECTIONS = ["verdict", "sigmoid", "training", "coefficients", "discrimination", "calibration", "threshold", "mistakes",
            "encoding", "reproduce"]  # fmt: skip
MOST_BYTES = 6_000_000


@pytest.fixture
def opened(browser):
    """Open a file as a reader would; whatever the page asks for or complains of fails the test at its end."""
    contexts, told, asked = [], [], []

    def open_page(path):
        context = browser.new_context(viewport={"width": 1440, "height": 900}, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
    assert len(asked) == len(contexts)
    assert all(url.startswith("file://") for url in asked)


def move(page, testid, value):
    page.get_by_test_id(testid).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


def confusion(page):
    cells = page.get_by_test_id("confusion").locator("tbody td").all_inner_texts()
    return np.array([int(cell) for cell in cells]).reshape(2, 2)


BEYOND = """width => [...document.querySelectorAll('main *')].filter(e => {
    const box = e.getBoundingClientRect(), cut = e.closest('svg, .who, nav');
    return box.width && box.right > width + 1 && !cut && getComputedStyle(e).position !== 'absolute';
}).map(e => e.outerHTML.slice(0, 100))"""


def check_layout(page, *, first_screen):
    """Two widths, light and dark: nothing beyond the edge, and the verdict on the first screen."""
    paper = set()
    for width, height, scheme in ((390, 844, "dark"), (1440, 900, "light")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BEYOND, width) == []
        assert page.locator("#verdict .tile h2").count() == 5
        if first_screen:
            bottom = page.locator("#verdict .tile").last.evaluate("e => e.getBoundingClientRect().bottom")
            assert bottom <= height
        paper.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(paper) == 2


def check_structure(page):
    assert page.locator("main > section").evaluate_all("all => all.map(e => e.id)") == SECTIONS
    assert page.evaluate("[...document.querySelectorAll('input')].filter(e => !e.labels.length).length") == 0
    assert page.evaluate("[...document.querySelectorAll('svg')].filter(e => !e.getAttribute('aria-label')).length") == 0
    assert page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id).length") == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
    )
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(e => document.querySelector(e.hash))")


def check_training(page, trace, what):
    """The slider shows the step's figures, and moves the picture; the keyboard moves the slider."""
    slider = page.get_by_test_id("training-step")
    assert int(slider.get_attribute("max")) == len(trace) - 1
    look = f"document.querySelector('{what}').outerHTML"
    seen = set()
    for step in (0, len(trace) // 2, len(trace) - 1):
        move(page, "training-step", str(step))
        for field in ("objective", "kkt", "excess"):
            reading = page.locator(f"#training-{field}")
            assert float(reading.get_attribute("data-value")) == trace[step][field]
            shown = float(reading.inner_text().replace("−", "-"))
            assert shown == pytest.approx(trace[step][field], rel=1e-2)
        seen.add(page.evaluate(look))
    assert len(seen) == 3
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#training-number").inner_text() == str(len(trace) - 2)


def check_threshold(page, truth, score):
    """The matrix is scikit-learn's at every stop, and the lowest cost is the lowest."""
    np.testing.assert_array_equal(confusion(page), confusion_matrix(truth, score >= 0.5))
    seen = set()
    for threshold in ("0", "0.05", "0.37", "0.5", "0.731", "0.999", "1"):
        move(page, "threshold", threshold)
        assert page.locator("#threshold-number").inner_text() == threshold
        matrix = confusion(page)
        np.testing.assert_array_equal(matrix, confusion_matrix(truth, score >= float(threshold)))
        seen.add(matrix.tobytes())
    assert len(seen) > 3
    page.locator("#cost-miss").fill("7")
    page.locator("#cost-best").click()
    costs = [7 * np.sum(truth & (score < k / 1000)) + np.sum(~truth & (score >= k / 1000)) for k in range(1001)]
    (_, alarms), (misses, _) = confusion(page)
    assert alarms + 7 * misses == min(costs)
    page.get_by_test_id("threshold").focus()
    before = page.locator("#threshold-number").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#threshold-number").inner_text() != before


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("blobs", "#training-boundary"),
        ("breast_cancer", "#training-bars"),
        ("census", "#training-bars"),
        ("hostile", "#training-bars"),
    ],
)
@pytest.mark.slow
def test_two_classes(opened, tmp_path, name, what):
    if name == "census" and not SHARED.is_dir():
        pytest.skip(f"the real data sets are not on this machine: {SHARED} does not exist")
    path = tmp_path / "report.html"
    model, X, y = write(name, path)
    assert path.stat().st_size < MOST_BYTES
    page = opened(path)
    check_layout(page, first_screen=name != "hostile")
    check_structure(page)
    classifier = model[-1] if what == "#training-bars" and name != "breast_cancer" else model
    check_training(page, classifier.trace_, what)
    check_threshold(page, np.asarray(y) == model.classes_[1], model.predict_proba(X)[:, 1])
    if name == "hostile":
        for place in page.locator("bdi").all()[:40]:
            place.hover(force=True)
        assert page.evaluate("window.attacked") is None
        assert page.locator("script").count() == 3
        assert page.locator("main img, main iframe, main object").count() == 0


@pytest.mark.parametrize(("name", "what"), [("four_blobs", "#training-surface"), ("digits", "#training-bars")])
@pytest.mark.slow
def test_many_classes(opened, tmp_path, name, what):
    path = tmp_path / "report.html"
    model, X, y = write(name, path)
    assert path.stat().st_size < MOST_BYTES
    page = opened(path)
    check_layout(page, first_screen=True)
    check_structure(page)
    check_training(page, model.trace_, what)
    cells = page.get_by_test_id("confusion").locator("tbody td").evaluate_all("all => all.map(e => +e.textContent)")
    count = len(model.classes_)
    np.testing.assert_array_equal(np.reshape(cells, (count, count)), confusion_matrix(y, model.predict(X)))


def test_without_a_script_and_on_paper(browser, tmp_path):
    path = tmp_path / "report.html"
    write("blobs", path)
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#training-boundary").get_attribute("d").startswith("M")
    assert page.get_by_test_id("confusion").locator("td").nth(1).inner_text().isdigit()
    page.emulate_media(media="print")
    assert not page.locator("nav.side").is_visible()
    assert page.locator("#verdict .tile").first.is_visible()
    context.close()
