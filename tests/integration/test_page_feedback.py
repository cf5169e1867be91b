"""The buttons below the answer, in a real browser: what they send, whom the page asks, and when it does not."""

import base64
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Route, expect

from model.bundle import Bundle
from tests.integration.test_metrics import scrape, value
from tests.integration.test_page import DIGITS, ONE, PREDICT, Visit, browser, colour, contrast
from tests.processes import Server

__all__ = ["browser"]

FEEDBACK = "**/v1/models/digits:feedback"
ASKED, QUESTION = "Picked at random: is that right?", "Is that right?"
NEVER, ALWAYS = 0.999, 0.0


class Talk(Visit):
    """A page that takes feedback."""

    @property
    def panel(self) -> Locator:
        return self.page.locator("#feedback")

    @property
    def question(self) -> Locator:
        return self.page.locator("#question")

    def button(self, name: str | int) -> Locator:
        return self.panel.get_by_role("button", name=str(name), exact=True)

    def draw_digit(self, digit: int) -> None:
        self.draw(DIGITS[digit])
        self.expect_spoken(digit)

    def sent_by(self, action: Callable[[], None]) -> dict[str, Any]:
        """What is sent when ``action`` is done."""
        with self.page.expect_request(FEEDBACK) as info:
            action()
        sent: Any = info.value.post_data_json
        assert isinstance(sent, dict)
        return sent


@pytest.fixture(scope="module")
def taking(bundle: Bundle) -> Iterator[Server]:
    """A server that takes feedback, which asks about a twentieth of the drawings."""
    with Server("--model_dir", str(bundle.directory), "--feedback", "true") as running:
        yield running


@pytest.fixture
def start(browser: Browser, taking: Server) -> Iterator[Callable[..., Talk]]:
    """Opens the page, where chance gives what it is told to; in the end it may not have failed, or asked another server."""
    contexts: list[BrowserContext] = []
    visits: list[Talk] = []

    def begin(chance: float = NEVER, **options: Any) -> Talk:
        contexts.append(browser.new_context(**options))
        contexts[-1].add_init_script(f"Math.random = () => {chance}")
        visits.append(Talk(contexts[-1].new_page(), f"{taking.url}/"))
        visits[-1].open()
        return visits[-1]

    yield begin
    for context in contexts:
        context.close()
    for visit in visits:
        assert [said for said in visit.complaints if not said.startswith("Failed to load resource")] == []
        assert [url for url in visit.requests if not url.startswith((visit.url, "data:"))] == []


def picture(sent: dict[str, Any]) -> Any:
    (instance,) = sent["instances"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(instance["b64"]))).convert("L"))


def test_right_sends_the_drawing_the_answer_and_its_version(start: Callable[..., Talk], taking: Server, bundle: Bundle) -> None:
    visit = start()
    visit.draw_digit(7)
    expect(visit.question).to_have_text(QUESTION)
    series = {"version": bundle.version, "source": "volunteered", "label": "7", "predicted": "7"}
    before = value(scrape(taking), "chiffre_feedback_images_total", **series)
    sent = visit.sent_by(lambda: visit.button("Right").click())
    assert (sent["labels"], sent["model_version"], sent["source"]) == ([7], bundle.version, "volunteered")
    assert picture(sent).shape == (280, 280)
    assert picture(sent).min() == 0
    expect(visit.question).to_have_text("Thank you: noted as right.")
    expect(visit.page.locator("#asked")).to_have_text("Thank you: noted as right.")
    assert value(scrape(taking), "chiffre_feedback_images_total", **series) == before + 1
    # Once for a drawing, whatever is pressed; and anew for the next one.
    visit.button("Right").click(force=True)
    visit.button("Wrong").click(force=True)
    expect(visit.question).to_have_text("Thank you: noted as right.")
    visit.press("Clear")
    expect(visit.panel).to_be_hidden()
    visit.draw_digit(1)
    expect(visit.question).to_have_text(QUESTION)
    assert sum(url.endswith(":feedback") for url in visit.requests) == 1


def test_wrong_asks_for_the_digit_and_sends_that(start: Callable[..., Talk], taking: Server, bundle: Bundle) -> None:
    visit = start()
    visit.draw_digit(1)
    visit.button("Wrong").click()
    expect(visit.question).to_have_text("Which digit did you draw?")
    expect(visit.button("Right")).to_be_hidden()
    # It cannot be what it was taken for.
    expect(visit.button(1)).to_be_hidden()
    visit.button("Back").click()
    expect(visit.question).to_have_text(QUESTION)
    visit.button("Wrong").click()
    sent = visit.sent_by(visit.button(4).click)
    assert (sent["labels"], sent["source"]) == ([4], "volunteered")
    expect(visit.question).to_have_text("Thank you: noted as wrong, it is 4.")
    series = {"version": bundle.version, "source": "volunteered", "label": "4", "predicted": "1"}
    assert value(scrape(taking), "chiffre_feedback_images_total", **series) == 1


def test_a_drawing_that_is_picked_is_asked_about_and_counted_apart(start: Callable[..., Talk]) -> None:
    visit = start(ALWAYS)
    visit.draw_digit(7)
    expect(visit.question).to_have_text(ASKED)
    expect(visit.page.locator("#asked")).to_have_text(ASKED)
    assert visit.sent_by(visit.button("Right").click)["source"] == "asked"
    visit.press("Clear")
    visit.draw_digit(1)
    visit.button("Wrong").click()
    assert visit.sent_by(visit.button(7).click)["source"] == "asked"


def test_the_share_that_the_server_states_is_picked_before_there_is_an_answer(start: Callable[..., Talk]) -> None:
    visit = start()
    assert visit.page.locator('meta[name="feedback"]').get_attribute("content") == "0.05"
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    for chance, question in ((0.049, ASKED), (0.051, QUESTION)):
        visit.page.evaluate(f"Math.random = () => {chance}")
        held.clear()
        visit.page.route(PREDICT, hold)
        visit.draw(ONE)
        visit.page.wait_for_timeout(200)
        # Chance has decided: what it would say now makes no difference.
        visit.page.evaluate(f"Math.random = () => {1 - chance}")
        assert held
        # What was held goes on by that.
        visit.page.unroute_all()
        visit.expect_spoken(1)
        visit.draw([[(0.5, 0.2), (0.5, 0.5)]])
        expect(visit.question).to_have_text(question)
        visit.press("Clear")


def test_test_images_are_not_asked_about(start: Callable[..., Talk]) -> None:
    visit = start(ALWAYS)
    visit.answer_to(lambda: visit.press("Random test image"))
    expect(visit.panel).to_be_hidden()
    visit.draw([[(0.05, 0.95), (0.3, 0.95)]])
    visit.page.wait_for_timeout(300)
    expect(visit.panel).to_be_hidden()


def test_another_stroke_makes_another_drawing_of_the_same_one(start: Callable[..., Talk]) -> None:
    visit = start()
    visit.draw_digit(1)
    visit.button("Wrong").click()
    visit.draw([[(0.3, 0.2), (0.5, 0.15)]])
    # What was to be said of the drawing before is not said of this one.
    expect(visit.button("Right")).to_be_visible()
    sent = visit.sent_by(visit.button("Right").click)
    assert sent["labels"] == [int(visit.digit.inner_text())]
    rows = np.flatnonzero((picture(sent) < 128)[:, :100].any(axis=1))
    assert rows.size, "the new stroke is in it"


def test_it_is_done_with_keys_alone_and_the_focus_is_never_lost(start: Callable[..., Talk]) -> None:
    visit = start()
    keyboard = visit.page.keyboard
    visit.draw_digit(7)
    visit.page.locator("#sample").focus()
    keyboard.press("Tab")
    expect(visit.button("Right")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(visit.button(0)).to_be_focused()
    keyboard.press("Escape")
    expect(visit.button("Wrong")).to_be_focused()
    assert visit.ink() > 0, "here it does not clear the sheet"
    keyboard.press("Space")
    keyboard.press("Tab")
    sent = visit.sent_by(lambda: keyboard.press("Enter"))
    assert sent["labels"] == [1]
    expect(visit.button("Wrong")).to_be_focused()
    expect(visit.button("Wrong")).to_have_attribute("aria-disabled", "true")
    expect(visit.page.get_by_role("group", name="Thank you: noted as wrong, it is 1.")).to_be_visible()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": 429, "headers": {"retry-after": "3"}, "json": {"error": "feedback: too much"}}, "Too many opinions"),
        ({"status": 503, "json": {"error": "queue: full"}}, "could not be sent"),
        ({"status": 400, "json": {"error": "labels: none"}}, "could not be sent"),
    ],
    ids=["too fast", "busy", "refused"],
)
def test_what_was_not_taken_can_be_said_again(start: Callable[..., Talk], answer: dict[str, Any], says: str) -> None:
    visit = start()
    visit.draw_digit(7)
    visit.page.route(FEEDBACK, lambda route: route.fulfill(**answer), times=1)
    visit.button("Right").click()
    expect(visit.question).to_contain_text(says)
    visit.button("Right").click()
    expect(visit.question).to_have_text("Thank you: noted as right.")


def test_an_answer_of_another_version_is_told_so(start: Callable[..., Talk]) -> None:
    visit = start()
    visit.draw_digit(7)
    body = {"counted": 0, "correct": 0, "other_version": 1, "model_version": "4"}
    visit.page.route(FEEDBACK, lambda route: route.fulfill(json=body), times=1)
    visit.button("Right").click()
    expect(visit.question).to_contain_text("Another version answers by now")


def test_while_the_server_is_away_nothing_is_asked(start: Callable[..., Talk]) -> None:
    visit = start()
    visit.draw_digit(7)
    visit.page.route(re.compile("/v[12]/"), lambda route: route.abort())
    visit.draw([[(0.4, 0.5), (0.6, 0.5)]])
    expect(visit.panel).to_be_hidden()
    visit.page.unroute_all()
    expect(visit.panel).to_be_visible()


def test_a_server_without_feedback_has_a_page_without_buttons(browser: Browser, server: Server) -> None:
    context = browser.new_context()
    visit = Talk(context.new_page(), f"{server.url}/")
    visit.open()
    visit.draw_digit(7)
    expect(visit.panel).to_be_hidden()
    context.close()
    assert visit.complaints == []


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_the_buttons_fit_and_are_readable_in_light_and_dark(start: Callable[..., Talk], width: int) -> None:
    visit = start(ALWAYS, viewport={"width": width, "height": 1080 if width > 400 else 740}, color_scheme="light")
    sheet = visit.sheet.bounding_box()
    visit.draw_digit(1)
    for _ in range(2):
        expect(visit.panel).to_be_in_viewport(ratio=1)
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.sheet.bounding_box() == sheet
        for button in visit.panel.get_by_role("button").all():
            box = button.bounding_box()
            assert box
            # WCAG 2.2, target size.
            assert min(box["width"], box["height"]) >= 24
        if visit.button("Wrong").is_visible():
            visit.button("Wrong").click()
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        ground = colour(visit.page.locator("body"), "backgroundColor")
        assert contrast(colour(visit.question, "color"), ground) >= 4.5
        button = visit.button(4)
        assert contrast(colour(button, "color"), colour(button, "backgroundColor")) >= 4.5
