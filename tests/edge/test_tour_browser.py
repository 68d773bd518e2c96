"""The tour in a real browser: every control is moved, and every number is computed again by other means."""

from __future__ import annotations

import math
import signal
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression as Peer

from torchlogit.tour import doors, layers, optimizers, points, sliders, step
from truth.tour_reference import adam, descend, log_loss, network_loss, with_momentum

LAST = "tour-loss-6"


@pytest.fixture(scope="module")
def address(browser):
    pytest.importorskip("marimo", reason="marimo is not installed")
    command = [sys.executable, "-m", "torchlogit", "tour", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[4]
        finally:
            server.send_signal(signal.SIGINT)
            try:
                told, complaints = server.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()  # a server that does not end is a failure, and must not hold up the others
                raise
    assert (server.returncode, told, complaints) == (0, "The tour has ended.\n", "")


@pytest.fixture(scope="module")
def page(browser, address):
    errors, asked = [], set()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("websocket", lambda socket: asked.add(socket.url.split("/")[2]))
    page.goto(address)
    page.get_by_test_id(LAST).wait_for(timeout=60_000)
    yield page
    context.close()
    assert errors == []
    assert asked == {address.split("/")[2]}


def slider(page, name):
    return page.get_by_test_id(f"tour-{name}").get_by_role("slider")


def slid(page, name, keys):
    """Move a slider by the keyboard; its new value."""
    before = slider(page, name).get_attribute("aria-valuenow")
    for key in keys:
        slider(page, name).press(key)
    now = slider(page, name).get_attribute("aria-valuenow")
    assert now != before
    return float(now)


def at(page, name):
    return float(slider(page, name).get_attribute("aria-valuenow"))


def press(page, name):
    page.get_by_test_id(f"tour-{name}").get_by_role("button").click()


def choose(page, name, what):
    page.get_by_test_id(f"tour-{name}").locator("select").select_option(what)


def shows(page, name, expected, rel=1e-9, absolute=1e-12):
    """The page comes to show a number."""
    page.wait_for_function(
        """([id, expected, slack]) => {
            const place = document.querySelector(`[data-testid="${id}"]`);
            return place && place.dataset.value !== undefined &&
                Math.abs(place.dataset.value - expected) <= slack; }""",
        arg=[f"tour-{name}", float(expected), rel * abs(expected) + absolute],
    )
    shown = page.get_by_test_id(f"tour-{name}").inner_text().replace("−", "-").replace(",", "")
    assert float(shown) == pytest.approx(float(expected), rel=1e-3, abs=1e-12)


def test_chapter_1_a_line_and_points_of_ones_own(page):
    X, y = (values.numpy() for values in points.two_groups())

    def check():
        angle = math.radians(at(page, "angle-1"))
        w, b = 2 * np.array([math.cos(angle), math.sin(angle)]), -2 * at(page, "shift-1")
        shows(page, "loss-1", log_loss(X @ w + b, y))
        shows(page, "wrong-1", np.sum((X @ w + b > 0) != y))
        shows(page, "points-1", len(y))

    check()
    slid(page, "angle-1", ["ArrowLeft"] * 9)
    check()
    slid(page, "shift-1", ["ArrowLeft"] * 4)
    check()
    mine = [slid(page, "x1-1", ["ArrowRight"] * 3), slid(page, "x2-1", ["ArrowLeft"] * 2)]
    page.locator(f'circle[data-point="{mine[0]:g},{mine[1]:g},1"]').wait_for()
    choose(page, "label-1", "orange")
    page.locator(f'circle[data-point="{mine[0]:g},{mine[1]:g},0"]').wait_for()
    press(page, "add-1")
    X, y = np.vstack([X, mine]), np.append(y, 0.0)
    check()
    assert page.locator(".line.second").count() == 0
    page.get_by_test_id("tour-best-1").get_by_role("checkbox").click()
    page.locator(".line.second").wait_for()
    press(page, "clear-1")
    X, y = X[:-1], y[:-1]
    check()


def test_chapter_2_loss_and_slopes(page):
    x, y = (values.numpy() for values in sliders.hours())

    def check():
        w, b = at(page, "w-2"), at(page, "b-2")
        residual = 1 / (1 + np.exp(-(w * x + b))) - y
        shows(page, "loss-2", log_loss(w * x + b, y))
        shows(page, "slope-w-2", np.mean(residual * x))
        shows(page, "slope-b-2", np.mean(residual))

    check()
    slid(page, "w-2", ["ArrowRight"] * 11)
    check()
    slid(page, "b-2", ["ArrowLeft"] * 23)
    check()
    mine = slid(page, "x-2", ["ArrowLeft"] * 30)
    page.locator(f'circle[data-point="{mine:g},0,0"]').wait_for()
    choose(page, "passed-2", "passed")
    page.locator(f'circle[data-point="{mine:g},1,1"]').wait_for()
    press(page, "add-2")
    x, y = np.append(x, mine), np.append(y, 1.0)
    shows(page, "points-2", 13)
    check()
    page.get_by_text("Every person's numbers").click()
    assert page.get_by_test_id("tour-table-2").locator("tbody tr").count() == 13
    press(page, "clear-2")
    x, y = x[:-1], y[:-1]
    check()
    slid(page, "w-2", ["End"])
    slid(page, "b-2", ["Home"])
    check()


def test_values_reach_the_page_in_the_order_in_which_they_were_chosen(page):
    held = []

    def hold(route):  # no method of a list: Playwright leaves a mark on what it calls
        held.append(route)

    page.route("**/set_ui_element_value", hold)
    chosen = [slid(page, "w-2", [key]) for key in ("ArrowLeft", "ArrowLeft", "ArrowRight")]
    sent = []
    for number in range(1, 4):
        for _ in range(500):
            if len(held) >= number:
                break
            page.wait_for_timeout(20)
        page.wait_for_timeout(100)  # for others to come, if they may
        assert len(held) == number, "each waits for the answer to the one before it"
        sent += held[-1].request.post_data_json["values"]
        with page.expect_response("**/set_ui_element_value"):
            held[-1].continue_()
    page.unroute("**/set_ui_element_value")
    assert sent == chosen
    x, y = (values.numpy() for values in sliders.hours())
    shows(page, "loss-2", log_loss(chosen[-1] * x + at(page, "b-2"), y))


def test_chapter_3_forwards_and_back(page):
    X, y = (values.numpy() for values in step.four_points())
    graph = page.get_by_test_id("tour-graph-3")
    stages = ["forward", "loss", "backward", "update"]

    def check(place, rate):
        page.wait_for_function(
            "stage => document.querySelector('[data-testid=tour-graph-3]').dataset.stage === stage",
            arg=stages[place % 4],
        )
        shows(page, "step-3", place // 4)
        theta, slope = descend(X, y, rate, place // 4)
        if place % 4 >= 1:
            shows(page, "loss-3", log_loss(X @ theta[:2] + theta[2], y))
        if place % 4 >= 2:
            for name, value in zip(("slope-w1", "slope-w2", "slope-b"), slope, strict=True):
                shows(page, f"{name}-3", value)

    check(0, 1.0)
    for place in (1, 2, 3, 4, 5):
        press(page, "forth-3")
        check(place, 1.0)
    press(page, "back-3")
    check(4, 1.0)
    assert graph.locator(".slope.unseen").count() == 6
    press(page, "step-forth-3")
    check(8, 1.0)
    press(page, "step-forth-3")
    check(12, 1.0)
    press(page, "step-back-3")
    check(8, 1.0)
    press(page, "forth-3")
    press(page, "forth-3")
    check(10, 1.0)
    assert graph.locator(".slope.unseen").count() == 0
    check(10, slid(page, "rate-3", ["ArrowRight"] * 5))


def test_chapter_4_two_doors(page):
    X, y = (values.numpy() for values in points.two_groups())

    def check(C):
        peer = Peer(C=C, tol=1e-12, max_iter=10_000).fit(X, y)
        best = log_loss(peer.decision_function(X), y) + np.sum(peer.coef_**2) / (2 * C * len(y))
        shows(page, "loss-fit-4", best, rel=1e-9)
        theta = with_momentum(X, y, at(page, "rate-4"), int(at(page, "step-4")), 1 / (C * len(y)))
        penalty = np.sum(theta[:2] ** 2) / (2 * C * len(y))
        shows(page, "loss-4", log_loss(X @ theta[:2] + theta[2], y) + penalty)

    check(1)
    slid(page, "step-4", ["ArrowRight"] * 7)
    check(1)
    slid(page, "rate-4", ["ArrowRight"] * 3)
    check(1)
    slid(page, "step-4", ["End"])
    check(1)
    page.get_by_text("The two agree to nine decimals").wait_for()
    slid(page, "C-4", ["ArrowRight"])
    check(10)


def test_chapter_5_optimizers(page):
    x, y = (values.numpy() for values in optimizers.ages())
    columns = {"raw": x[:, None], "standardised": ((x - x.mean()) / x.std())[:, None]}
    rates = [0.01, 0.03, 0.1, 0.3, 1, 3]

    def check(rate, steps):
        best = log_loss(Peer(C=np.inf, tol=1e-12).fit(columns["standardised"], y).decision_function(
            columns["standardised"]), y)  # fmt: skip
        for kind, X in columns.items():
            for name, theta in (
                ("SGD", descend(X, y, rate, steps)[0]), ("momentum", with_momentum(X, y, rate, steps)),
                ("Adam", adam(X, y, rate, steps)),
            ):  # fmt: skip
                shows(page, f"loss-5-{kind}-{name}", log_loss(X @ theta[:1] + theta[1], y), rel=1e-7)
            shows(page, f"loss-5-{kind}-solver", best, rel=1e-6)

    check(0.3, 60)
    check(0.3, int(slid(page, "steps-5", ["ArrowLeft"] * 12)))
    slid(page, "rate-5", ["ArrowLeft"])
    check(rates[2], 48)


def test_chapter_6_layers(page):
    X, y = layers.moons()

    def check():
        depth, width, epochs = (int(at(page, f"{name}-6")) for name in ("layers", "width", "epochs"))
        shows(page, "loss-straight-6", network_loss(X, y, 0, 0, epochs), rel=1e-4)
        shows(page, "loss-6", network_loss(X, y, depth, width, epochs), rel=1e-4)

    check()
    slid(page, "epochs-6", ["ArrowLeft"] * 3)
    check()
    slid(page, "width-6", ["ArrowLeft"] * 2)
    check()
    slid(page, "layers-6", ["ArrowRight"])
    check()
    slid(page, "layers-6", ["Home"])
    check()
    page.get_by_text("both pictures are the same").wait_for()


def test_the_code_that_is_shown_is_the_code_that_runs(page):
    shown = "\n".join(page.locator("pre").all_inner_texts())
    for function in (points.judge, sliders.forward, step.training_step, doors.engine_room, layers.trained):
        assert f"def {function.__name__}(" in shown
    assert "type: ignore" not in shown


def test_both_widths_and_schemes(page):
    paper = set()
    for width, height, scheme in ((390, 844, "dark"), (1440, 900, "light")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        beyond = """width => [...document.querySelectorAll('.tour *')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width && box.right > width + 1 && !e.closest('svg, .scroll');
        }).map(e => e.outerHTML.slice(0, 90))"""
        page.wait_for_function(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        assert page.evaluate(beyond, width) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper.add(page.evaluate("getComputedStyle(document.querySelector('.tour')).color"))
    assert len(paper) == 2
    for k in range(1, 7):
        page.locator(f'nav a[href="#chapter-{k}"]').click()
        page.wait_for_function(
            "k => { const y = document.querySelector(`#chapter-${k}`).getBoundingClientRect().top;"
            " return y >= 0 && y < innerHeight; }", arg=k,
        )  # fmt: skip
        page.evaluate("document.querySelector('header.tour').scrollIntoView()")
