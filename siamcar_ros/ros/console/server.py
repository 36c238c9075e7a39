"""The operator's page over HTTP and a websocket, as docs/console.md describes it. No rclpy here."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from aiohttp import WSCloseCode, WSMsgType, web

from siamcar_ros.ros.console.link import Link, Step, encode

if TYPE_CHECKING:
    from siamcar_ros.ros.console.camera import Camera, View

_PAGE = Path(__file__).resolve().with_name("page")  # resolved, as an install may have links
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST_PAGES = 8
_MOST_SOCKETS = 64  # open connections, of which some have not sent the token yet
# Limits for a page: bytes of a message, messages and requests per second, requests at a time.
_MESSAGE_BYTES, _MESSAGES, _REQUESTS, _AT_A_TIME = 4096, 300, 10, 4
_FIRST_MESSAGE = 5.0  # seconds within which a page must say what it watches
_WRONG_TOKEN = 4401  # close code


class Console:
    """Serves the page, and keeps a camera open while a page watches it.

    Args:
        find: returns the names of the tracker nodes.
        open_camera: called in a thread with a tracker's name and a function, which the camera that
            it returns calls when it has a new view.
        token: secret that a page must send; empty: none is required.
        local: whether only this machine can connect. Then requests to any other host name are
            refused, as a hostile page could make its own name resolve to 127.0.0.1.
        rate: maximum rate of the pictures in Hz.

    Attributes:
        app: the application to run.
        pages: that are served.
        calls: threads for calls of services, which may take long.
    """

    def __init__(
        self,
        find: Callable[[], list[str]],
        open_camera: Callable[[str, Callable[[], None]], Camera],
        *,
        token: str = "",
        local: bool = True,
        rate: float = 30.0,
    ) -> None:
        self.find, self.token, self.rate = find, token.encode(), rate
        self.calls = ThreadPoolExecutor(_MOST_PAGES)
        self._open_camera, self._local = open_camera, local
        # Tasks, so that a camera is opened once, and closed even if its only page leaves meanwhile.
        self._cameras: dict[str, asyncio.Task[Camera]] = {}
        self.pages: set[Page] = set()
        self._connected: set[Page] = set()  # those that have not sent the token, too
        self.app = web.Application(middlewares=[self._guard])
        self.app.on_response_prepare.append(_add_headers)
        self.app.router.add_get("/ws", self._websocket)
        self.app.router.add_get("/", self._index)
        self.app.router.add_static("/", _PAGE)
        self.app.on_shutdown.append(self._shut_down)

    async def camera(self, name: str) -> Camera:
        """Return the camera of a tracker; open it if it is not."""
        if name not in self._cameras:
            loop = asyncio.get_running_loop()

            def changed() -> None:
                with suppress(RuntimeError):  # the event loop is closed
                    loop.call_soon_threadsafe(self._spread, name)

            opening = asyncio.to_thread(self._open_camera, name, changed)
            self._cameras[name] = asyncio.create_task(opening)
        return await asyncio.shield(self._cameras[name])

    async def release(self, name: str) -> None:
        """Close a camera unless a page watches it."""
        if name in self._cameras and not any(page.watched == name for page in self.pages):
            opening = self._cameras.pop(name)
            with suppress(Exception):  # it was not opened: those who watched it have been told
                await asyncio.to_thread((await opening).close)

    def _spread(self, name: str) -> None:
        for page in self.pages:
            if page.watched == name:
                page.news.set()

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Refuse requests to another host name (DNS rebinding)."""
        if self._local and _split(f"//{request.host}").hostname not in LOOPBACK:
            raise web.HTTPForbidden(text=f"this console is not called {request.host}")
        return await handler(request)

    async def _index(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(_PAGE / "index.html")

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        origin = _split(request.headers.get("Origin", ""))
        if origin.scheme not in ("http", "https") or origin.netloc != request.host:
            raise web.HTTPForbidden(text="only the console's own page may connect")
        if len(self._connected) >= _MOST_SOCKETS:
            raise web.HTTPServiceUnavailable(text="too many connections: close other pages")
        socket = web.WebSocketResponse(
            heartbeat=10.0, max_msg_size=_MESSAGE_BYTES, compress=False, timeout=2.0
        )
        page = Page(self, socket)
        self._connected.add(page)
        try:
            await socket.prepare(request)
            await page.serve()
        finally:
            self._connected.discard(page)
            self.pages.discard(page)
            await self.release(page.watched)
        return socket

    async def _shut_down(self, _: web.Application) -> None:
        ends = WSCloseCode.GOING_AWAY, "the console has ended"
        await asyncio.gather(*(page.close(*ends) for page in self._connected))
        self.pages.clear()
        for name in list(self._cameras):
            await self.release(name)
        self.calls.shutdown(wait=False, cancel_futures=True)


class Page:
    """One open page.

    Attributes:
        watched: name of the tracker that it watches; empty: none.
        news: set when there is a new view, or room on the link.
    """

    def __init__(self, console: Console, socket: web.WebSocketResponse) -> None:
        self.watched = ""
        self.news = asyncio.Event()
        self._console, self._socket = console, socket
        self._camera: Camera | None = None
        self._link = Link(console.rate)
        self._shown_width = 640
        self._trouble = ""  # why the newest image cannot be shown
        self._messages = self._requests = 0  # within the current second
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self, code: int, reason: str) -> None:
        """End the connection."""
        await self._socket.close(code=code, message=reason.encode())

    async def serve(self) -> None:
        """Serve the page until it disconnects."""
        try:
            await self._guarded(self._listen())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        first = self._content(await self._socket.receive(_FIRST_MESSAGE))
        given, token = _text(first, "token").encode(errors="replace"), self._console.token
        if token and not hmac.compare_digest(given, token):
            await asyncio.sleep(1.0)  # slows down guessing
            await self.close(_WRONG_TOKEN, "the token is wrong or missing")
            return
        if len(self._console.pages) >= _MOST_PAGES:
            text = f"{_MOST_PAGES} pages are connected already"
            await self.close(WSCloseCode.TRY_AGAIN_LATER, text)
            return
        self._console.pages.add(self)
        await self._obey(first)
        self._spawn(self._send_states())
        self._spawn(self._send_pictures())
        async for message in self._socket:
            await self._obey(self._content(message))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do a part of the work; end the connection if it fails."""
        try:
            await work
        except (_Refused, asyncio.TimeoutError) as error:
            await self.close(WSCloseCode.POLICY_VIOLATION, str(error) or "the page sent nothing")
        except ConnectionError:
            pass  # the page has disconnected
        except Exception:
            logging.getLogger(__name__).exception("serving a page has failed")
            await self.close(WSCloseCode.INTERNAL_ERROR, "the console has failed: see its log")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _content(self, message: Any) -> dict[str, Any]:
        """Return a message's content; raise _Refused if the page would not send it."""
        self._messages += 1
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED):
            raise ConnectionError
        if self._messages > _MESSAGES:
            raise _Refused("too many messages")
        content = None
        if message.type is WSMsgType.TEXT:
            with suppress(ValueError, RecursionError):
                content = json.loads(message.data)
        if not isinstance(content, dict):
            raise _Refused("messages are JSON objects")
        return content

    async def _obey(self, message: dict[str, Any]) -> None:
        """Carry out a message; raise _Refused if it is malformed."""
        asked = message.get("do")
        if asked == "watch":
            self._shown_width = round(_number(message.get("width"), 16, 8192))
            await self._watch(_text(message, "camera"))
        elif asked == "acknowledge":
            number = round(_number(message.get("number"), 0, 2**53))
            self._link.acknowledged(number, _number(message.get("ms"), 0, 600_000) / 1000)
            self.news.set()
        elif asked in ("start", "stop", "stop_all"):
            call = round(_number(message.get("call"), 0, 2**53))
            self._spawn(self._answer(call, _request(message)))
        else:
            raise _Refused("unknown message")

    async def _watch(self, name: str) -> None:
        """Change to a tracker; empty keeps the current one, or takes the first.

        One that has not been found is waited for: after a restart of the console, another tracker
        may be found first, and must not take its place.
        """
        names = self._console.find()
        before, name = self.watched, name or self.watched or (names[0] if names else "")
        if name != before:
            self.watched, self._camera, self._trouble = name, None, ""
        if self._camera is None and name in names:
            camera = await self._console.camera(name)
            if self.watched == name:  # else the page has changed its mind meanwhile
                self._camera = camera
                self.news.set()
        if name != before:
            await self._console.release(before)

    async def _answer(self, call: int, request: Callable[[Camera], str]) -> None:
        self._requests += 1
        try:
            if self._camera is None:
                raise ValueError("no tracker node has been found yet")
            if self._requests > _REQUESTS or len(self._tasks) > 2 + _AT_A_TIME:
                raise ValueError("too many requests at once: wait a second")
            loop = asyncio.get_running_loop()
            text = await loop.run_in_executor(self._console.calls, request, self._camera)
            done = True
        except (ValueError, RuntimeError) as error:  # refused, or the node cannot be reached
            done, text = False, str(error)
        await self._send({"is": "answer", "call": call, "done": done, "text": text})

    async def _send(self, content: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(content, allow_nan=False))

    async def _send_states(self) -> None:
        """Send the state every second; without it, the page assumes that the link is lost."""
        while True:
            self._messages = self._requests = 0
            if self._camera is None:
                await self._watch("")
            state: dict[str, Any] = {"is": "state", "watched": self.watched, "figures": {}}
            state["at"] = time.monotonic()
            state["cameras"] = sorted({*self._console.find(), self.watched} - {""})
            state["notice"] = "no tracker node is in the ROS graph: start one"
            if self.watched:
                state["notice"] = f"waiting for {self.watched}, which is not in the ROS graph"
            if self._camera is not None:
                state["notice"] = self._camera.notice() or self._trouble
                state["figures"] = self._camera.figures()
            await self._send(state)
            await asyncio.sleep(1.0)

    async def _send_pictures(self) -> None:
        """Send the newest picture whenever there is room on the link."""
        number, shown = 0, None
        while True:
            self.news.clear()
            delay = self._link.delay(time.monotonic())
            view = self._camera.view if self._camera is not None else None
            if view is None or view is shown or math.isinf(delay):
                await self.news.wait()
                continue
            if delay > 0:
                await asyncio.sleep(delay)
                continue
            shown, watched, step = view, self.watched, self._link.step
            try:
                jpeg, size = await asyncio.to_thread(_picture, view, step, self._shown_width)
                self._trouble = ""
            except ValueError as error:
                self._trouble = str(error)
                continue
            number += 1
            described = {"is": "view", "number": number, "watched": watched, "size": size}
            # The page measures the time between the two messages, which is that of the transfer.
            await self._send(described | view.described())
            self._link.sent(number, len(jpeg), time.monotonic())
            await self._socket.send_bytes(jpeg)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


class _Refused(Exception):
    """The page has violated the protocol, so the connection ends."""


def _request(message: dict[str, Any]) -> Callable[[Camera], str]:
    asked, target = message["do"], _text(message, "id")
    if asked == "stop":
        return lambda camera: camera.client.remove_target(target)
    if asked == "stop_all":
        return lambda camera: camera.client.stop_tracking()
    box, stamp, frame_id = message.get("box"), message.get("stamp"), _text(message, "frame_id")
    if not isinstance(box, list) or not isinstance(stamp, list):
        raise _Refused("a start needs a box and a stamp")
    if (len(box), len(stamp)) != (4, 2):
        raise _Refused("a box has four numbers, a stamp two")
    x, y, w, h = (_number(each, -1e6, 1e6) for each in box)
    sec, nanosec = (int(_number(each, 0, 2**31 - 1)) for each in stamp)
    return lambda camera: camera.start((x, y, w, h), (sec, nanosec), frame_id, target)


def _picture(view: View, step: Step, shown_width: int) -> tuple[bytes, tuple[int, int]]:
    image = view.image()
    return encode(image, step, shown_width), (image.shape[1], image.shape[0])


def _split(url: str) -> SplitResult:
    """Return the parts of a URL from a header; empty ones if it is malformed."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name, "")
    if not isinstance(value, str):
        raise _Refused(f"{name} must be text")
    return value


def _number(value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise _Refused(f"a number must be from {low:g} to {high:g}")
    return float(value)
