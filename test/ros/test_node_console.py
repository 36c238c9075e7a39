"""The operator's page in a real browser, with a node, the film that ships, and the console."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the extra `console`")
pytest.importorskip("playwright", reason="playwright is not installed: the extra `dev`")

from browser import chromium
from lifecycle_msgs.msg import Transition
from node_harness import NodeProcess, Robot, wait_for
from playwright.sync_api import Browser, Locator, Page, expect

from siamcar_ros.processes import Child

pytestmark = pytest.mark.slow

NAMESPACE = "/console"
PATIENCE = 60_000.0  # milliseconds that the page is given; loaded machines are slow
FIRST = (255, 195, 25)  # BGR of the first target's box
expect.set_options(timeout=PATIENCE)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Desk:
    """A tracker node that is shown the film, a console, and a browser."""

    def __init__(self, folder: Path, stack: ExitStack, browser: Browser) -> None:
        self.stack, self.browser, self._folder = stack, browser, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        given: dict[str, object] = {"max_targets": 4, "threads": 1, "image_timeout": 4.0}
        self.node = NodeProcess(folder / "tracker.log", NAMESPACE, given)
        stack.callback(self.node.end)
        self.robot = Robot(self.node)
        stack.callback(self.robot.close)
        self.film = self.start("frame_source", source="clip", rate=5.0, preload=240)
        self.console = self.start("operator_console", port=self.port)

    def start(self, name: str, **parameters: object) -> Child:
        arguments = ["--ros-args", "-r", f"__ns:={NAMESPACE}"]
        for key, value in parameters.items():
            arguments += ["-p", f"{key}:={value}"]
        log = self._folder / f"{name}{time.monotonic_ns()}.log"
        child = self.stack.enter_context(Child(name, f"siamcar_ros.ros.{name}", arguments, log))
        child.start()
        return child

    def open(self, **options: Any) -> Page:
        """A page on which a picture is seen; an error of its script fails the test."""
        page = self.browser.new_context(**options).new_page()
        page.on("pageerror", lambda error: pytest.fail(f"the page's script failed: {error}"))
        wait_for("console", lambda: "open http" in self.console.tail())
        page.goto(self.url)
        choose = """name => {
            const list = document.querySelector("#cameras");
            const found = [...list.options].some((each) => each.value === name);
            if (found && list.value !== name) { list.value = name; list.onchange(); }
            return found;
        }"""
        # The first camera that is found may be that of other tests.
        page.wait_for_function(choose, arg=f"{NAMESPACE}/tracker", timeout=60_000)
        expect(page.locator("#nothing")).to_be_hidden()
        return page


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with ExitStack() as stack:
        browser = stack.enter_context(chromium())
        desk = Desk(tmp_path_factory.mktemp("desk"), stack, browser)
        desk.robot.client.wait_until_active(120)
        yield desk


@pytest.fixture
def page(desk: Desk) -> Iterator[Page]:
    """A page with a desktop's window, before any target is tracked."""
    page = desk.open(viewport={"width": 1100, "height": 700})
    yield page
    page.context.close()
    desk.robot.client.stop_tracking()


def picture(page: Page) -> Any:
    """What is drawn, (H, W, 3) BGR, in CSS pixels."""
    shot = np.frombuffer(page.locator("#picture").screenshot(scale="css"), np.uint8)
    return cv2.imdecode(shot, cv2.IMREAD_COLOR)


def extent(mask: Any) -> tuple[int, int, int, int] | None:
    """x, y, w, h of the largest region, None if it is small."""
    _, _, regions, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, np.ones((7, 7))))
    largest = max(regions[1:].tolist(), key=lambda region: region[4], default=None)
    return tuple(largest[:4]) if largest is not None and largest[4] > 900 else None  # type: ignore[return-value]


def car(drawn: Any) -> tuple[int, int, int, int] | None:
    """Where the film's orange car is seen."""
    return extent(cv2.inRange(cv2.cvtColor(drawn, cv2.COLOR_BGR2HSV), (4, 170, 90), (14, 255, 255)))


def outline(drawn: Any, color: tuple[int, int, int] = FIRST) -> tuple[int, int, int, int] | None:
    """The box that is drawn in a color, label included."""
    near = np.array(color)
    return extent(cv2.inRange(drawn, np.maximum(near - 12, 0), np.minimum(near + 12, 255)))


def drag(page: Page, box: tuple[int, int, int, int]) -> None:
    """Draw a box given in the canvas's CSS pixels."""
    place = page.locator("#picture").bounding_box()
    assert place is not None
    x, y, w, h = box
    page.mouse.move(place["x"] + x, place["y"] + y)
    page.mouse.down()
    page.mouse.move(place["x"] + x + w, place["y"] + y + h, steps=3)
    page.mouse.up()


def find_car(page: Page) -> tuple[int, int, int, int]:
    """Where the car is, once it is in sight."""
    found = wait_for("car in the picture", lambda: car(picture(page)))
    assert found is not None
    return found


class Mouse:
    def __init__(self, page: Page) -> None:
        self.page = page

    def down(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y)
        self.page.mouse.down()

    def up(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y, steps=3)
        self.page.mouse.up()

    def cancel(self) -> None:
        self.page.keyboard.press("Escape")
        self.page.mouse.up()


class Finger:
    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def _touch(self, kind: str, *points: dict[str, float]) -> None:
        touch = {"type": kind, "touchPoints": list(points)}
        self._session.send("Input.dispatchTouchEvent", touch)

    def down(self, x: float, y: float) -> None:
        self._touch("touchStart", {"x": x, "y": y})

    def up(self, x: float, y: float) -> None:
        self._touch("touchMove", {"x": x, "y": y})
        self._touch("touchEnd")

    def cancel(self) -> None:
        self._touch("touchCancel")


def drag_car(page: Page, hand: Mouse | Finger | None = None) -> None:
    """Draw a box around the car, again and again until it has not driven on meanwhile.

    The picture is held from the press on, so what is seen then is what the box is drawn on.
    """
    hand = hand or Mouse(page)

    def drawn() -> bool:
        x, y, _, _ = find_car(page)
        place = page.locator("#picture").bounding_box()  # only the first picture gives it its size
        assert place is not None
        hand.down(place["x"] + x - 9, place["y"] + y - 9)
        held = car(picture(page))
        if held is None or not (abs(held[0] - x) <= 9 and abs(held[1] - y) <= 9):
            hand.cancel()
            return False
        hand.up(place["x"] + held[0] + held[2] + 5, place["y"] + held[1] + held[3] + 5)
        return True

    wait_for("car that stands still", drawn)


def targets(page: Page) -> Locator:
    return page.locator("#targets li")


def assert_follows(page: Page) -> None:
    """The box drawn moves, and is on the car while the page says that the car is tracked."""
    hits: list[float] = []
    misses = 0

    def tracked() -> bool:
        return page.locator("#targets .state").all_inner_texts() == ["Tracking"]

    def followed() -> bool:
        nonlocal misses
        before, drawn = tracked(), picture(page)
        where, box = car(drawn), outline(drawn)
        # The state may change while the picture is taken.
        if not before or not tracked() or where is None or box is None:
            return False
        if box[0] - 15 <= where[0] + where[2] / 2 <= box[0] + box[2] + 15:
            hits.append(box[0] + box[2] / 2)
        else:
            misses += 1
        return len(hits) >= 6 and max(hits) - min(hits) > 40

    wait_for("car that is followed", followed, 60)
    assert misses <= len(hits) / 3


def test_a_box_that_is_dragged_follows_the_car(page: Page) -> None:
    expect(page.locator("#link")).to_contain_text("pictures/s")
    expect(page.locator("#no-targets")).to_be_visible()
    drag_car(page)
    expect(page.locator("#answer")).to_contain_text("is being tracked")
    expect(targets(page)).to_have_count(1)
    expect(page.locator(".state")).to_have_text(re.compile("Tracking|Uncertain"))
    expect(page.locator(".sure")).to_have_text(re.compile(r"^\d+ % sure$"))
    expect(page.locator("figure output").first).to_have_text(re.compile(r"^\d+\.\d ms$"))
    assert_follows(page)


def test_targets_differ_in_color_and_are_selected_again_and_stopped_one_by_one(page: Page) -> None:
    drag_car(page)
    expect(targets(page)).to_have_count(1)
    drag(page, (20, 20, 120, 90))
    expect(targets(page)).to_have_count(2)
    swatches = page.locator("#targets .swatch")
    colors = [swatches.nth(each).evaluate("e => e.style.backgroundColor") for each in range(2)]
    assert len(set(colors)) == 2
    names = page.locator("#targets .id").all_inner_texts()
    first, second = (page.locator("#targets li", has_text=name) for name in names)
    first.get_by_role("button", name="Re-select").click()
    expect(page.locator("#hint")).to_contain_text(f"Select {names[0]} again")
    drag(page, (40, 40, 120, 90))
    expect(page.locator("#answer")).to_contain_text(f"{names[0]} is being tracked")
    second.get_by_role("button", name="Stop").click()
    expect(page.locator("#targets .id")).to_have_text(names[:1])
    assert first.locator(".swatch").evaluate("e => e.style.backgroundColor") == colors[0]
    page.get_by_role("button", name="Stop all").click()
    expect(page.locator("#no-targets")).to_be_visible()


def test_a_tap_is_a_point_and_the_node_answers_it(page: Page) -> None:
    x, y, w, h = find_car(page)
    page.locator("#picture").click(position={"x": x + w / 2, "y": y + h / 2})
    expect(page.locator("#answer")).to_contain_text("is being tracked")


def test_a_target_is_started_by_keyboard(page: Page) -> None:
    page.bring_to_front()

    def reached() -> bool:
        page.keyboard.press("Tab")
        return bool(page.evaluate("document.activeElement.id === 'picture'"))

    wait_for("focus on the picture", reached)
    page.keyboard.press("Enter")
    expect(page.locator("#hint")).to_contain_text("Arrows move the box")
    page.keyboard.press("Escape")
    for key in ("Enter", "ArrowLeft", "ArrowDown", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#answer")).to_contain_text("is being tracked")
    expect(targets(page)).to_have_count(1)
    page.get_by_role("button", name="Stop", exact=True).press("Enter")
    expect(targets(page)).to_have_count(0)
    expect(page.locator("#picture")).to_be_focused()


def test_a_name_never_becomes_html(desk: Desk, page: Page) -> None:
    name = "<img src=x onerror=document.title='broken'>"
    desk.robot.client.init_target((100, 100, 80, 60), target=name)
    expect(page.locator("#targets .id")).to_have_text(name)
    assert page.locator("img").count() == 0
    assert page.title() == "Operator console"


def test_a_foreign_page_cannot_connect(desk: Desk, page: Page) -> None:
    page.route("http://hostile.example/", lambda route: route.fulfill(body="<p>hostile"))
    page.goto("http://hostile.example/")
    tried = page.evaluate(
        """url => new Promise(done => {
            const socket = new WebSocket(url);
            socket.onopen = () => done("open");
            socket.onclose = () => done("closed");
        })""",
        f"ws://127.0.0.1:{desk.port}/ws",
    )
    assert tried == "closed"


def test_the_page_fits_a_phone_and_works_by_touch(desk: Desk) -> None:
    page = desk.open(
        viewport={"width": 390, "height": 780},
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
    )
    place = page.locator("#picture").bounding_box()
    assert place is not None
    assert place["width"] > 340
    finger, hint = Finger(page), page.locator("#hint")
    finger.down(place["x"] + 20, place["y"] + 20)
    expect(hint).to_have_text("Let go to start. A second finger cancels.")
    finger.cancel()
    expect(hint).to_contain_text("Drag a box")
    drag_car(page, finger)
    expect(targets(page)).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_follows(page)
    stop = targets(page).get_by_role("button", name="Stop")
    size = stop.bounding_box()
    assert size is not None
    assert size["height"] >= 44
    stop.tap()
    expect(targets(page)).to_have_count(0)
    page.context.close()


def test_problems_are_reported_in_the_nodes_words(desk: Desk, page: Page) -> None:
    notice = page.locator("#notice")
    desk.film.end()
    expect(notice).to_contain_text(f"no image on {NAMESPACE}/image for")
    expect(notice).to_have_attribute("aria-live", "off")  # the seconds are not read aloud
    drag(page, (40, 40, 120, 90))
    expect(page.locator("#answer")).to_contain_text("check that the camera runs")
    assert desk.robot.change_state(Transition.TRANSITION_DEACTIVATE)
    expect(notice).to_contain_text(f"{NAMESPACE}/tracker: inactive")
    assert desk.robot.change_state(Transition.TRANSITION_ACTIVATE)
    desk.film = desk.start("frame_source", source="clip", rate=5.0, preload=240)
    next(desk.robot.client.tracks(60))  # the console may receive images before the node does
    expect(notice).to_be_hidden()
    expect(page.locator("#frame")).not_to_have_class("stale")
    drag_car(page)
    expect(page.locator("#answer")).to_contain_text("is being tracked")


def test_a_lost_connection_is_reported_and_restored(desk: Desk, page: Page) -> None:
    numbers: list[int] = []  # of the pictures that arrived

    def heard(message: str | bytes) -> None:
        if isinstance(message, str) and '"is": "view"' in message:
            numbers.append(json.loads(message)["number"])

    page.on("websocket", lambda socket: socket.on("framereceived", heard))
    page.reload()
    drag_car(page)
    expect(targets(page)).to_have_count(1)
    expect(page.locator("#frame")).not_to_have_class("stale")
    page.wait_for_timeout(6000)  # some thirty pictures
    before = numbers[-1]
    process = desk.console._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    stop = page.get_by_role("button", name="Stop", exact=True)
    stop.click()
    expect(stop).to_be_disabled()
    process.send_signal(signal.SIGKILL)
    process.wait()
    expect(page.locator("#notice")).to_contain_text("is lost. Trying again")
    expect(page.locator("#link")).to_have_text("Not connected")
    time.sleep(1)  # it tries in vain
    desk.console = desk.start("operator_console", port=desk.port)
    expect(page.locator("#answer")).to_contain_text("Connected again")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#frame")).not_to_have_class("stale")
    assert numbers[-1] < before  # the new server's first pictures are shown already
    expect(stop).to_be_enabled()  # its request was lost
    assert_follows(page)


def test_a_console_for_other_machines_requires_the_token_that_it_printed(desk: Desk) -> None:
    port = free_port()
    wide = desk.start("operator_console", port=port, host="0.0.0.0")
    wait_for("console", lambda: "open http" in wide.tail())
    token = wide.tail().rpartition("#")[2].strip()
    page = desk.browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/#wrong")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#nothing")).to_be_visible()
    page.get_by_label("Token", exact=True).fill(token)
    page.get_by_role("button", name="Connect").click()
    expect(page.locator("#nothing")).to_be_hidden()
    page.context.close()
    page = desk.browser.new_page()
    for given in ("wrong", token):  # the second changes the fragment of the address only
        page.goto(f"http://127.0.0.1:{port}/#{given}")
    expect(page.locator("#nothing")).to_be_hidden()
    assert page.url == f"http://127.0.0.1:{port}/"  # the token is not to be seen
    wide.end()
    assert "Traceback" not in wide.tail()
    page.context.close()
