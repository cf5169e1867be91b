"""The page in a real browser: digits are drawn on it as people draw them, and it says what the real server answers."""

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route, expect, sync_playwright

from tests.processes import Server

Points = list[tuple[float, float]]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 10_000
PREFIX = "/serving/default/digits"
PREDICT = "**/v1/models/digits:predict"

# Strokes of each digit, in shares of the sheet's side.
ONE: list[Points] = [[(0.5, 0.15), (0.5, 0.85)]]
SEVEN: list[Points] = [[(0.3, 0.2), (0.7, 0.2), (0.45, 0.85)]]
DIGITS: dict[int, list[Points]] = {
    0: [[(0.5, 0.15), (0.36, 0.22), (0.3, 0.5), (0.36, 0.78), (0.5, 0.85), (0.64, 0.78), (0.7, 0.5), (0.64, 0.22), (0.5, 0.15)]],
    1: ONE,
    2: [[(0.32, 0.3), (0.4, 0.18), (0.55, 0.16), (0.66, 0.26), (0.63, 0.42), (0.45, 0.64), (0.3, 0.82), (0.72, 0.82)]],
    3: [
        [(0.34, 0.22), (0.48, 0.15), (0.64, 0.22), (0.63, 0.38), (0.46, 0.47)],
        [(0.46, 0.47), (0.64, 0.56), (0.66, 0.74), (0.5, 0.85), (0.32, 0.77)],
    ],
    4: [[(0.38, 0.18), (0.32, 0.52), (0.7, 0.52)], [(0.64, 0.16), (0.62, 0.86)]],
    7: SEVEN,
}


@dataclass
class Visit:
    """A page that is open at ``url``, and what happened on it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self) -> "Visit":
        self.page.goto(self.url)
        expect(self.page.get_by_text("is ready")).to_be_visible()
        return self

    @property
    def sheet(self) -> Locator:
        return self.page.get_by_role("application", name="Drawing area")

    @property
    def hint(self) -> Locator:
        return self.page.locator("#hint")

    @property
    def digit(self) -> Locator:
        return self.page.locator("#digit")

    @property
    def verdict(self) -> Locator:
        return self.page.locator("#verdict")

    @property
    def spoken(self) -> Locator:
        return self.page.locator("#spoken")

    @property
    def notice(self) -> Locator:
        return self.page.locator("#notice")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click()

    def answer_to(self, action: Callable[[], None]) -> Any:
        """What the server answers to a drawing that ``action`` made whole at once, when the page shows it."""
        with self.page.expect_response(PREDICT) as info:
            action()
        answer = info.value.json()
        expect(self.digit).to_have_text(str(answer["predictions"][0]["label"]))
        return answer

    def places(self, points: Points) -> Points:
        """Where ``points`` of the sheet are in the window."""
        box = self.sheet.bounding_box()
        assert box
        return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]

    def draw(self, strokes: list[Points]) -> None:
        for stroke in strokes:
            start, *rest = self.places(stroke)
            self.page.mouse.move(*start)
            self.page.mouse.down()
            for place in rest:
                self.page.mouse.move(*place, steps=4)
            self.page.mouse.up()

    def ink(self) -> int:
        """How many pixels of the sheet are covered."""
        script = """(canvas) => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => {
            const copy = Object.assign(document.createElement('canvas'), { width: canvas.width, height: canvas.height });
            copy.getContext('2d').drawImage(canvas, 0, 0);
            const { data } = copy.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            resolve(data.filter((value, index) => index % 4 === 3 && value > 0).length);
        })))"""
        covered: int = self.sheet.evaluate(script)
        return covered

    def expect_spoken(self, digit: int) -> None:
        """What is said aloud, which is only said when the answer has settled."""
        article = "an" if digit == 8 else "a"
        expect(self.spoken).to_have_text(re.compile(rf"^(Looks like|Perhaps) {article} {digit}, \d+ percent$"))
        expect(self.digit).to_have_text(str(digit))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    assert executable, "the page's tests need chromium (Debian's package of that name); `make test` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, timeout=30_000)
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def start(browser: Browser, server: Server) -> Iterator[Callable[..., Visit]]:
    """Opens the page in a window made to order; in the end no page may have failed, or asked another server."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def begin(url: str = server.url, **options: Any) -> Visit:
        contexts.append(browser.new_context(**options))
        visits.append(Visit(contexts[-1].new_page(), f"{url}/"))
        return visits[-1]

    yield begin
    for context in contexts:
        context.close()
    for visit in visits:
        # Chromium says so of each answer that is no success; the tests that provoke one look at what the page makes of it.
        assert [said for said in visit.complaints if not said.startswith("Failed to load resource")] == []
        assert [url for url in visit.requests if not url.startswith((visit.url, "data:"))] == []


@pytest.fixture
def visit(start: Callable[..., Visit]) -> Visit:
    return start().open()


def test_drawn_digits_are_recognised_and_said_aloud(visit: Visit) -> None:
    for digit, strokes in DIGITS.items():
        visit.draw(strokes)
        visit.expect_spoken(digit)
        visit.press("Clear")


def test_the_answer_comes_while_the_digit_is_drawn(visit: Visit) -> None:
    start, *rest = visit.places(SEVEN[0])
    visit.page.mouse.move(*start)
    visit.page.mouse.down()
    for place in rest:
        visit.page.mouse.move(*place, steps=6)
    expect(visit.digit).to_have_text("7")
    visit.page.mouse.up()


def test_an_answer_shows_probabilities_the_models_own_image_latency_and_version(visit: Visit) -> None:
    answer = visit.answer_to(lambda: visit.press("Random test image"))
    prediction = answer["predictions"][0]
    for digit, probability in enumerate(prediction["probabilities"]):
        meter = visit.page.get_by_role("meter", name=f"Probability of {digit}")
        expect(meter).to_have_attribute("aria-valuetext", f"{probability * 100:.1f} percent")
    opacity = visit.page.get_by_role("img", name="What the model sees").evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, index) => index % 4 === 3)"
    )
    assert np.abs(np.array(opacity).reshape(28, 28) / 255 - np.array(prediction["image"])).max() < 0.01
    expect(visit.page.locator("#latency")).to_have_text(re.compile(r"^\d+ ms$"))
    expect(visit.page.locator("#version")).to_have_text(answer["model_version"])


def test_random_test_images_are_told_with_their_labels_and_recognised(visit: Visit) -> None:
    right = 0
    for _ in range(10):
        answer = visit.answer_to(lambda: visit.press("Random test image"))
        label = visit.hint.inner_text().removeprefix("From the MNIST test set: a").removeprefix("n").strip()[0]
        right += label == str(answer["predictions"][0]["label"])
    assert right >= 9


def test_undo_takes_back_strokes_test_images_and_clearings(visit: Visit) -> None:
    visit.draw(ONE)
    expect(visit.digit).to_have_text("1")
    one = visit.ink()
    visit.draw([[(0.1, 0.9), (0.3, 0.9)]])
    assert visit.ink() > one
    visit.press("Undo")
    assert visit.ink() == one
    visit.press("Random test image")
    visit.press("Undo")
    visit.press("Clear")
    assert visit.ink() == 0
    expect(visit.verdict).to_have_text("No answer yet")
    visit.press("Undo")
    expect(visit.digit).to_have_text("1")
    assert visit.ink() == one
    visit.press("Undo")
    expect(visit.verdict).to_have_text("No answer yet")
    expect(visit.page.get_by_role("button", name="Undo")).to_be_disabled()


def test_a_dot_is_drawn_and_answered(visit: Visit) -> None:
    visit.draw([[(0.5, 0.5)]])
    assert visit.ink() > 0
    expect(visit.verdict).not_to_have_text("No answer yet")
    assert visit.complaints == []


def test_a_stroke_on_a_test_image_adds_to_it(visit: Visit) -> None:
    visit.answer_to(lambda: visit.press("Random test image"))
    image = visit.ink()
    visit.draw([[(0.05, 0.95), (0.3, 0.95)]])
    assert visit.ink() > image
    expect(visit.hint).to_contain_text("MNIST")


def test_shortcuts_undo_clear_and_pick_and_leave_the_browsers_own_alone(visit: Visit) -> None:
    keyboard = visit.page.keyboard
    visit.answer_to(lambda: keyboard.press("r"))
    expect(visit.hint).to_contain_text("MNIST")
    keyboard.press("Control+z")
    assert visit.ink() == 0
    for key in ("Escape", "Delete"):
        visit.draw(ONE)
        keyboard.press(key)
        assert visit.ink() == 0
    # Ctrl+R belongs to the browser: the page must not take it.
    script = "(key) => document.dispatchEvent(new KeyboardEvent('keydown', { key, ctrlKey: true, cancelable: true }))"
    assert visit.page.evaluate(script, "r") is True
    assert visit.page.evaluate(script, "z") is False


def test_a_finger_draws_and_does_not_scroll(start: Callable[..., Visit]) -> None:
    visit = start(has_touch=True, is_mobile=True, viewport={"width": 360, "height": 640}, device_scale_factor=3).open()
    touch = visit.page.context.new_cdp_session(visit.page)
    corners = visit.places(SEVEN[0])
    steps = [np.linspace(one, other, 8) for one, other in pairwise(corners)]
    places = [{"x": x, "y": y} for x, y in np.concatenate(steps).tolist()]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": places[:1]})
    for place in places[1:]:
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [place]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    visit.expect_spoken(7)
    assert visit.page.evaluate("scrollY") == 0
    # As many pixels as the screen has.
    assert visit.sheet.evaluate("(canvas) => canvas.width === Math.round(canvas.clientWidth * 3)")


def test_a_digit_can_be_drawn_with_keys_alone(visit: Visit) -> None:
    keyboard = visit.page.keyboard
    keyboard.press("Tab")
    expect(visit.sheet).to_be_focused()
    keyboard.press("Shift+ArrowLeft")
    keyboard.press("Space")
    expect(visit.page.locator("#pen")).to_have_text(re.compile(r"^Pen down, column 10, row \d+ of 28$"))
    for key in ["Shift+ArrowRight"] * 2 + ["ArrowDown", "ArrowDown", "ArrowLeft"] * 5 + ["ArrowDown"] * 3:
        keyboard.press(key)
    keyboard.press("Enter")
    expect(visit.page.locator("#pen")).to_contain_text("Pen up")
    visit.expect_spoken(7)
    for name in ("Undo", "Clear"):
        keyboard.press("Tab")
        expect(visit.page.get_by_role("button", name=name)).to_be_focused()
    keyboard.press("Enter")
    expect(visit.verdict).to_have_text("No answer yet")


def test_everything_has_a_name_that_is_read_out(visit: Visit) -> None:
    page = visit.page
    expect(page).to_have_title(re.compile("digits"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Draw a digit")
    expect(visit.sheet).to_have_accessible_description(re.compile("arrow keys"))
    for name in ("Undo", "Clear", "Random test image"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_visible()
    expect(page.get_by_role("list", name="Probability of each digit").get_by_role("meter")).to_have_count(10)
    expect(page.get_by_role("region")).to_have_count(2)
    for region in page.get_by_role("status").all():
        assert region.get_attribute("aria-live") in ("polite", None)


def test_a_visit_asks_for_nothing_that_is_not_there(visit: Visit) -> None:
    visit.draw(SEVEN)
    expect(visit.digit).to_have_text("7")
    visit.answer_to(lambda: visit.press("Random test image"))
    assert visit.complaints == []
    files = [
        httpx.get(visit.url + name, headers={"accept": "text/html"}, timeout=10).raise_for_status()
        for name in ("", "page.css", "page.js", "server.js", "feedback.js")
    ]
    assert sum(len(answer.content) for answer in files) < 45_000


def test_the_page_works_below_a_path(start: Callable[..., Visit], server: Server) -> None:
    with proxy(server.url, []) as url:
        visit = start(url).open()
        visit.draw(SEVEN)
        expect(visit.digit).to_have_text("7")
        visit.answer_to(lambda: visit.press("Random test image"))
        assert len(visit.requests) > 5


@contextmanager
def proxy(target: str, sent: list[bytes]) -> Iterator[str]:
    """The URL of a server that hands on what is asked of it below a prefix, which it takes off; ``sent`` gets the bodies."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            sent.append(content)
            path = self.path.removeprefix(PREFIX) if self.path.startswith(f"{PREFIX}/") else "/outside"
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            answer = httpx.request(self.command, target + path, content=content, headers=headers, timeout=10)
            self.send_response(answer.status_code)
            for name in ("content-type", "content-security-policy", "x-model-version"):
                self.send_header(name, answer.headers.get(name, ""))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 -- as http.server calls it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}{PREFIX}"
        running.shutdown()
        thread.join(10)


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_page_fits_and_is_readable_in_light_and_dark(start: Callable[..., Visit], width: int) -> None:
    visit = start(viewport={"width": width, "height": 1080 if width > 400 else 740}, color_scheme="light").open()
    empty = visit.sheet.bounding_box()
    visit.answer_to(lambda: visit.press("Random test image"))
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for shown in (visit.sheet, visit.digit, visit.verdict, visit.page.locator("#bars")):
        expect(shown).to_be_in_viewport(ratio=1)
    box = visit.sheet.bounding_box()
    # The sheet does not move under the hand when the answer comes.
    assert box == empty
    assert box
    assert box["width"] >= min(0.8 * width, 600 if width > 1000 else 500)
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        ground = colour(visit.page.locator("body"), "backgroundColor")
        assert (luminance(ground) > 0.5) == (scheme == "light")
        for words in ("h1", "#hint", "#verdict", "#shares", "#digit", "#bars .share", "dt", "dd"):
            assert contrast(colour(visit.page.locator(words).first, "color"), ground) >= 4.5, words
        assert contrast(colour(visit.sheet, "color"), colour(visit.sheet, "backgroundColor")) >= 7


def colour(place: Locator, name: str) -> tuple[float, ...]:
    """Red, green and blue in [0, 1]."""
    value = place.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    return tuple(int(part) / 255 for part in re.findall(r"\d+", value)[:3])


def luminance(rgb: tuple[float, ...]) -> float:
    """WCAG's relative luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    darker, brighter = sorted([luminance(one), luminance(other)])
    return (brighter + 0.05) / (darker + 0.05)


def test_what_is_sent_is_black_on_white_in_the_dark_too(start: Callable[..., Visit], server: Server) -> None:
    sent: list[bytes] = []
    with proxy(server.url, sent) as url:
        visit = start(url, color_scheme="dark", reduced_motion="reduce").open()
        visit.draw(ONE)
        expect(visit.digit).to_have_text("1")
    picture = np.asarray(Image.open(io.BytesIO(sent[-1])).convert("L"))
    assert picture.shape == (280, 280)
    assert (picture[0] == 255).all()
    assert picture.min() == 0
    assert visit.page.locator(".bar > span").first.evaluate("(bar) => getComputedStyle(bar).transitionProperty") == "none"


def test_a_server_that_was_away_is_asked_again_and_the_drawing_is_kept(visit: Visit) -> None:
    visit.page.route(re.compile("/v[12]/"), lambda route: route.abort())
    visit.draw(SEVEN)
    expect(visit.notice).to_contain_text("cannot be reached")
    expect(visit.page.get_by_text("is away")).to_be_visible()
    drawn = visit.ink()
    visit.page.unroute_all()
    expect(visit.digit).to_have_text("7")
    expect(visit.notice).to_have_text("")
    expect(visit.page.get_by_text("is ready")).to_be_visible()
    assert visit.ink() == drawn > 0


def test_a_server_that_is_not_ready_is_asked_again_when_it_said(visit: Visit) -> None:
    headers, body = {"retry-after": "1"}, {"error": "model: expected to be loaded, got a start"}
    visit.page.route(PREDICT, lambda route: route.fulfill(status=503, headers=headers, json=body), times=1)
    visit.draw(ONE)
    expect(visit.notice).to_have_text(re.compile("^The server is not ready. .*model: expected to be loaded"))
    expect(visit.digit).to_have_text("1")
    expect(visit.notice).to_have_text("")


def test_a_drawing_that_is_refused_is_not_sent_again_until_it_changes(visit: Visit) -> None:
    blank = io.BytesIO()
    Image.new("L", (280, 280), 255).save(blank, "PNG")
    visit.page.route(PREDICT, lambda route: route.continue_(post_data=blank.getvalue()))
    visit.draw([[(0.5, 0.5)]])
    expect(visit.notice).to_contain_text("cannot read this drawing: expected a digit darker or brighter than its background")
    asked = len(visit.requests)
    visit.page.wait_for_timeout(1500)
    assert len(visit.requests) == asked
    visit.page.unroute_all()
    visit.draw(ONE)
    expect(visit.digit).to_have_text("1")
    expect(visit.notice).to_have_text("")


def test_one_request_is_in_flight_and_the_newest_drawing_is_next(visit: Visit) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route(PREDICT, hold)
    visit.draw(DIGITS[0])
    expect(visit.notice).to_contain_text("slow to answer")
    visit.press("Clear")
    visit.draw(SEVEN)
    visit.page.wait_for_timeout(500)
    # Clearing gave up the first; the second one waits for its answer, however much is drawn meanwhile.
    assert len(held) == 2
    with visit.page.expect_request(PREDICT):
        held[1].continue_()
    visit.page.wait_for_timeout(200)
    assert len(held) == 3
    held[2].continue_()
    visit.expect_spoken(7)


def test_something_else_that_answers_is_not_taken_for_the_model(visit: Visit) -> None:
    visit.page.route(PREDICT, lambda route: route.fulfill(body="<html>Sign in</html>", content_type="text/html"), times=1)
    visit.draw(ONE)
    expect(visit.notice).to_contain_text("not the model")
    expect(visit.digit).to_have_text("1")
