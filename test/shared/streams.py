"""Live streams on this machine for tests: MJPEG over HTTP, and H.264 over RTSP."""

from __future__ import annotations

import http.server
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

_PERIOD = 0.02
_MTU = 1400


def _picture(number: int) -> np.ndarray:
    """A gray frame with a white square that moves."""
    image = np.full((120, 160, 3), 60, np.uint8)
    left = 4 * number % 120
    image[40:70, left : left + 30] = 230
    return image


class _Mjpeg(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(10**6):
            data = cv2.imencode(".jpg", _picture(number))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(_PERIOD)

    def log_message(self, *_: Any) -> None:
        pass


def _encoded() -> list[list[bytes]]:
    """Each frame's H.264 units, with the headers in every key frame."""
    import av

    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 160, 120, "yuv420p"
    codec.time_base = Fraction(1, 50)
    codec.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "10"}
    packets = []
    for number in range(200):
        frame = av.VideoFrame.from_ndarray(_picture(number), format="bgr24").reformat(
            format="yuv420p"
        )
        frame.pts = number
        packets += [bytes(packet) for packet in codec.encode(frame)]
    return [
        [unit for unit in packet.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        for packet in packets
    ]


class _Rtsp(socketserver.StreamRequestHandler):
    """Enough of RTSP 1.0 for one track, interleaved with the connection."""

    def handle(self) -> None:
        answers = {
            "DESCRIBE": (
                "Content-Type: application/sdp\r\n",
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n",
            ),
            "SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
            "PLAY": ("Session: 1\r\n", ""),
        }
        method = ""
        while method != "PLAY":
            lines = [line.decode() for line in iter(lambda: self.rfile.readline().rstrip(), b"")]
            if not lines:
                return
            method = lines[0].split()[0]
            sequence = next(line for line in lines if line.lower().startswith("cseq"))
            head, body = answers.get(method, ("Public: DESCRIBE, SETUP, PLAY\r\n", ""))
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            answer = f"RTSP/1.0 200 OK\r\n{sequence}\r\n{head}{length}\r\n{body}"
            self.wfile.write(answer.encode())
        self._play(_encoded())

    def _play(self, frames: list[list[bytes]]) -> None:
        self._sequence = 0
        for number in range(10**6):
            for unit in frames[number % len(frames)]:
                for last, payload in _payloads(unit):
                    self._send(payload, number, last=last)
            time.sleep(_PERIOD)

    def _send(self, payload: bytes, number: int, *, last: bool) -> None:
        stamp = number * 1800 & 0xFFFFFFFF
        self._sequence = (self._sequence + 1) & 0xFFFF
        packet = struct.pack(">BBHII", 0x80, 96 | last << 7, self._sequence, stamp, 7) + payload
        self.wfile.write(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)


def _payloads(unit: bytes) -> Iterator[tuple[bool, bytes]]:
    """The RTP payloads of one unit: whole, or in fragments of type FU-A."""
    if len(unit) <= _MTU:
        yield True, unit
        return
    kind, body = unit[0] & 0x1F, unit[1:]
    for start in range(0, len(body), _MTU):
        last = start + _MTU >= len(body)
        flags = kind | (0x80 if start == 0 else 0) | (0x40 if last else 0)
        yield last, bytes([unit[0] & 0xE0 | 28, flags]) + body[start : start + _MTU]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: list[socket.socket] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        super().finish_request(request, client_address)

    def handle_error(self, *_: Any) -> None:
        pass  # a client that leaves


@contextmanager
def serve(kind: str, port: int = 0) -> Iterator[int]:
    """Serve a "http" or "rtsp" stream; give the port. At the end all connections break off."""
    with _Server(("127.0.0.1", port), {"http": _Mjpeg, "rtsp": _Rtsp}[kind]) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            for connection in server.connections:
                with suppress(OSError):  # closed by the client
                    connection.shutdown(socket.SHUT_RDWR)
