"""The operator's page without a browser or a tracker: what it lets in, and what it answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed: the extra `console`")

from aiohttp import (
    ClientResponse,
    ClientWebSocketResponse,
    WSCloseCode,
    WSMsgType,
    WSServerHandshakeError,
)
from aiohttp.test_utils import TestClient, TestServer

from siamcar_ros.ros.console.link import STEPS
from siamcar_ros.ros.console.server import Console, Page
from siamcar_ros.tracking.stored_image import StoredImage

TEXTURE = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8), (0, 0), 2
)


class FakeView:
    def __init__(self, number: int) -> None:
        self.number = number

    def image(self) -> StoredImage:
        return StoredImage(np.roll(TEXTURE, self.number, 1), "bgr")

    def described(self) -> dict[str, Any]:
        return {"stamp": [7, self.number], "frame_id": "camera", "tracks": []}


class FakeCamera:
    """Refuses every target in the node's words.

    Has a new image whenever it is asked, unless `newest` says which it has.
    """

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self.name, self.changed = name, changed
        self.asked: list[tuple[Any, ...]] = []
        self.client = self  # of its tracker
        self.views, self.closed = map(FakeView, itertools.count()), False
        self.newest: FakeView | None = None

    @property
    def view(self) -> FakeView:
        return self.newest or next(self.views)

    def start(self, *wanted: Any) -> str:
        self.asked.append(wanted)
        raise ValueError("the box lies outside the image")

    def remove_target(self, target: str) -> str:
        self.asked.append((target,))
        return f"stopped {target!r}"

    def stop_tracking(self) -> str:
        return "nothing was tracked"

    def figures(self) -> dict[str, Any]:
        return {"latency_ms": 4.0}

    def notice(self) -> str:
        return f"{self.name}: no image on /image for 2.1 s (0 publishers)"

    def close(self) -> None:
        self.closed = True


class Operator:
    """A client of the console, and the cameras that it opened."""

    def __init__(self, client: TestClient[Any, Any], cameras: dict[str, FakeCamera]) -> None:
        self.client, self.cameras = client, cameras
        self.origin = str(client.make_url("")).rstrip("/")

    async def connect(
        self, watch: dict[str, Any] | None = None, **headers: str
    ) -> ClientWebSocketResponse:
        socket = await self.client.ws_connect("/ws", headers={"Origin": self.origin} | headers)
        await socket.send_json({"do": "watch", "camera": "", "width": 640} | (watch or {}))
        return socket


def run(test: Callable[[Operator], Awaitable[None]], **options: Any) -> dict[str, FakeCamera]:
    """Run a test against a console with two cameras; return those that it opened."""
    cameras: dict[str, FakeCamera] = {}

    def open_camera(name: str, changed: Callable[[], None]) -> Any:
        cameras[name] = FakeCamera(name, changed)
        return cameras[name]

    async def all_of_it() -> None:
        find = options.pop("find", lambda: ["/front/tracker", "/rear/tracker"])
        console = Console(find, options.pop("open_camera", open_camera), **options)
        async with TestClient(TestServer(console.app)) as client:
            await test(Operator(client, cameras))

    asyncio.run(all_of_it())
    return cameras


async def hear(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next text message of a kind."""
    async for message in socket:
        if message.type is WSMsgType.TEXT and json.loads(message.data)["is"] == kind:
            return dict(json.loads(message.data))
    raise AssertionError(f"closed with {socket.close_code} before a {kind!r}")


async def closing(socket: ClientWebSocketResponse) -> int | None:
    """The code with which the server ends the connection."""
    async for _ in socket:
        pass
    return socket.close_code


def test_the_page_loads_nothing_from_other_servers_and_inserts_no_html() -> None:
    async def test(operator: Operator) -> None:
        for path in ("/", "/console.css", "/console.js", "/icon.svg"):
            answer: ClientResponse = await operator.client.get(path)
            text = await answer.text()
            assert answer.status == 200
            assert not re.search(r"(src|href|url|import)[=( ]*[\"']?(https?:)?//", text)
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
            assert not re.search(r"style=|onclick=|<script>", text.replace("el.style=", ""))
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for path in ("/server.py", "/page/index.html", "/%2e%2e/server.py", "/ws"):
            answer = await operator.client.get(path)
            assert answer.status in (403, 404), path
            assert "Content-Security-Policy" in answer.headers
        assert (await operator.client.post("/")).status == 405

    assert not run(test)


@pytest.mark.parametrize(
    "origin", ["", "null", "http://[", "http://evil.example", "http://127.0.0.1:1"]
)
def test_a_foreign_origin_is_refused(origin: str) -> None:
    async def test(operator: Operator) -> None:
        with pytest.raises(WSServerHandshakeError) as refused:
            await operator.connect(Origin=origin)
        assert refused.value.status == 403

    assert not run(test)


@pytest.mark.parametrize("host", ["rebound.example:8484", "[::"])
@pytest.mark.parametrize(("local", "status"), [(True, 403), (False, 200)])
def test_a_local_console_answers_to_local_names_only(host: str, local: bool, status: int) -> None:
    async def test(operator: Operator) -> None:
        answer = await operator.client.get("/", headers={"Host": host})
        assert answer.status == status

    run(test, local=local)


@pytest.mark.parametrize(("given", "code"), [("", 4401), ("wrong", 4401), ("sesame", None)])
def test_a_token_is_required(given: str, code: int | None) -> None:
    async def test(operator: Operator) -> None:
        socket = await operator.connect({"token": given})
        if code is None:
            assert (await hear(socket, "state"))["watched"] == "/front/tracker"
        else:
            assert await closing(socket) == code

    cameras = run(test, token="sesame")
    assert bool(cameras) == (code is None)
    assert all(each.closed for each in cameras.values())


def test_a_token_that_is_not_required_is_ignored() -> None:
    async def test(operator: Operator) -> None:  # the page has kept it from an earlier console
        await hear(await operator.connect({"token": "sesame"}), "state")

    run(test)


def test_a_camera_is_closed_that_opens_after_its_only_page_has_left() -> None:
    names: list[str] = []
    cameras: list[FakeCamera] = []
    opening, left = threading.Event(), threading.Event()

    def open_camera(name: str, changed: Callable[[], None]) -> FakeCamera:
        opening.set()
        assert left.wait(60)
        cameras.append(FakeCamera(name, changed))
        return cameras[-1]

    async def test(operator: Operator) -> None:
        socket = await operator.connect()
        await hear(socket, "state")
        names.append("/late/tracker")
        await asyncio.to_thread(opening.wait, 60)
        await socket.close()
        await asyncio.sleep(0.2)
        left.set()
        while not cameras or not cameras[0].closed:
            await asyncio.sleep(0.01)

    run(lambda operator: asyncio.wait_for(test(operator), 60), find=lambda: names,
        open_camera=open_camera)  # fmt: skip


def test_the_tracker_that_a_page_watched_is_waited_for() -> None:
    """After a restart of the console, which may find another tracker first."""
    names = ["/front/tracker"]

    async def test(operator: Operator) -> None:
        socket = await operator.connect(watch={"camera": "/rear/tracker"})
        state = await hear(socket, "state")
        assert state["notice"] == "waiting for /rear/tracker, which is not in the ROS graph"
        assert (state["watched"], state["cameras"]) == ("/rear/tracker", sorted(
            ["/front/tracker", "/rear/tracker"]))  # fmt: skip
        names.append("/rear/tracker")
        assert (await hear(socket, "view"))["watched"] == "/rear/tracker"
        assert list(operator.cameras) == ["/rear/tracker"]

    run(test, find=lambda: names)


def test_a_camera_that_could_not_be_opened_is_opened_for_the_next_page() -> None:
    tries = itertools.count()

    def open_camera(name: str, changed: Callable[[], None]) -> FakeCamera:
        if next(tries) == 0:
            raise RuntimeError("no more file descriptors")
        return FakeCamera(name, changed)

    async def test(operator: Operator) -> None:
        assert await closing(await operator.connect()) == WSCloseCode.INTERNAL_ERROR
        assert (await hear(await operator.connect(), "view"))["watched"] == "/front/tracker"

    run(test, open_camera=open_camera)


@pytest.mark.parametrize(
    "message",
    [
        "not JSON",
        "[]",
        "{}",
        '{"do": "shut_down"}',
        '{"do": "watch", "camera": 5, "width": 640}',
        '{"do": "watch", "camera": "", "width": NaN}',
        '{"do": "acknowledge", "number": 1, "ms": "fast"}',
        '{"do": "acknowledge", "number": true, "ms": 1}',
        '{"do": "start", "call": 1, "box": [1, 2, 3], "stamp": [0, 0]}',
        '{"do": "start", "call": 1, "box": [1, 2, 3, Infinity], "stamp": [0, 0]}',
        '{"do": "stop", "call": 1, "id": {}}',
        '{"do": "stop"}',
        b"bytes",
        '{"do": "stop", "call": 1, "id": "' + "x" * 4096 + '"}',
    ],
)
def test_a_message_that_the_page_would_not_send_ends_the_connection(message: str | bytes) -> None:
    async def test(operator: Operator) -> None:
        socket = await operator.connect()
        await hear(socket, "state")
        await (
            socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message)
        )
        assert await closing(socket) in (1008, 1009)
        await hear(await operator.connect(), "state")  # others are served on

    assert all(not each.asked for each in run(test).values())


def test_pages_without_the_token_take_no_place() -> None:
    async def test(operator: Operator) -> None:
        for token in ["wrong"] * 10:
            await operator.connect({"token": token})
        for _ in range(8):
            await hear(await operator.connect({"token": "sesame"}), "state")

    run(test, token="sesame")


def test_connections_that_say_nothing_are_limited_and_closed_at_the_end() -> None:
    async def test(operator: Operator) -> None:
        headers = {"Origin": operator.origin}
        silent = [await operator.client.ws_connect("/ws", headers=headers) for _ in range(64)]
        with pytest.raises(WSServerHandshakeError) as refusal:
            await operator.client.ws_connect("/ws", headers=headers)
        assert refusal.value.status == 503
        ended = asyncio.gather(*map(closing, silent))
        await operator.client.app.shutdown()
        assert set(await ended) == {WSCloseCode.GOING_AWAY}

    run(test, token="sesame")


def test_numbers_and_rates_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_second_without_end(page: Page) -> None:
        await page._send({"is": "state"})
        await asyncio.Event().wait()

    monkeypatch.setattr(Page, "_send_states", one_second_without_end)

    async def test(operator: Operator) -> None:
        pages = [await operator.connect() for _ in range(8)]
        for page in pages:
            await hear(page, "state")
        assert await closing(await operator.connect()) == 1013
        done = []
        for call in range(12):
            await pages[0].send_json({"do": "stop", "call": call, "id": "a"})
            answer = await hear(pages[0], "answer")
            done.append(answer["done"])
        assert done == [True] * 10 + [False] * 2
        assert answer["text"] == "too many requests at once: wait a second"
        acknowledged = {"do": "acknowledge", "number": 0, "ms": 0}
        for _ in range(298):
            await pages[1].send_json(acknowledged)
        await pages[1].send_json({"do": "stop", "call": 0, "id": "a"})  # with the first, 300
        assert (await hear(pages[1], "answer"))["done"]
        await pages[1].send_json(acknowledged)
        assert await asyncio.wait_for(closing(pages[1]), 60) == 1008

    run(test)


def test_a_request_carries_the_stamp_of_its_picture_and_the_refusal_comes_back() -> None:
    async def test(operator: Operator) -> None:
        socket = await operator.connect({"camera": "/rear/tracker"})
        state = await hear(socket, "state")
        assert state["cameras"] == ["/front/tracker", "/rear/tracker"]
        assert state["notice"] == "/rear/tracker: no image on /image for 2.1 s (0 publishers)"
        shown = await hear(socket, "view")
        assert shown["size"] == [640, 480]
        start = {"do": "start", "call": 3, "box": [5, 6, 0, 0], "id": "<b>"}
        await socket.send_json(start | {"stamp": shown["stamp"], "frame_id": "camera"})
        answer = await hear(socket, "answer")
        assert answer == {
            "is": "answer", "call": 3, "done": False, "text": "the box lies outside the image"
        }  # fmt: skip
        stamp = tuple(shown["stamp"])
        assert operator.cameras["/rear/tracker"].asked == [((5, 6, 0, 0), stamp, "camera", "<b>")]

    run(test)


def test_an_image_that_a_newer_one_replaces_is_not_sent() -> None:
    async def test(operator: Operator) -> None:
        socket = await operator.connect()
        first = await hear(socket, "view")
        camera = operator.cameras["/front/tracker"]
        for number in (1001, 1002, 1003):  # while the first is on the way
            camera.newest = FakeView(number)
            camera.changed()
            await asyncio.sleep(0.05)
        await socket.send_json({"do": "acknowledge", "number": first["number"], "ms": 1})
        assert (await hear(socket, "view"))["stamp"] == [7, 1003]

    run(test)


def test_pictures_become_small_and_keep_coming_when_a_link_narrows_to_200_kilobits() -> None:
    async def test(operator: Operator) -> None:
        socket = await operator.connect()
        sizes: list[int] = []
        while len(sizes) < 50:
            shown = await hear(socket, "view")
            sizes.append(len(await socket.receive_bytes()))
            # What a page would measure on such a link.
            ms = 0.01 if len(sizes) < 30 else 1000 * sizes[-1] / 25_000
            await socket.send_json({"do": "acknowledge", "number": shown["number"], "ms": ms})
        assert max(sizes[:30]) > 2 * sizes[0]
        assert max(sizes[-5:]) < 25_000 * STEPS[0].seconds

    run(test)
