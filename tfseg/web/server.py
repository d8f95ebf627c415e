"""The page's HTTP server: three files of the page, and JSON answers; local, without anything from outside."""

import json
import sys
import traceback
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tfseg.errors import InputError
from tfseg.web.answers import Answers

HOST = "127.0.0.1"
MAX_BYTES = 256_000_000
"""Larger files are refused unread."""

_FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
_FILES["/page.css"] = ("page.css", "text/css")
# The browser loads nothing from elsewhere and runs no script but ours, whatever a name contains.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1.

    Args:
        answers: Of the model.
        port: 0 takes a free one.

    Raises:
        InputError: If the port is taken or not allowed.
    """

    daemon_threads = True

    def __init__(self, answers: Answers, port: int) -> None:
        self.answers = answers
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(f"--port={port}: {error.strerror}; --port=0 takes a free one") from error

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Is silent on browsers that leave before their answer; a defect of ours keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # Seconds that a sender may be silent.
    server: PageServer

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path in _FILES:
            name, kind = _FILES[path]
            self._send((Path(__file__).parent / name).read_bytes(), f"{kind}; charset=utf-8")
        elif path == "/model":
            self._answer(self.server.answers.model)
        elif path in ("/mask", "/mask.png"):
            asked = dict(urllib.parse.parse_qsl(query))
            make = self.server.answers.mask if path == "/mask" else self.server.answers.mask_file
            self._answer(lambda: make(asked.get("result", ""), _number(asked.get("threshold", "0.5"))))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        size = self.headers.get("Content-Length", "")
        self.close_connection = True  # What is refused was not read to its end.
        if path != "/segment":
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")
        elif not size.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "the size of the file is missing")
        elif int(size) > MAX_BYTES:
            message = f"the file has {int(size):,} bytes; allowed are {MAX_BYTES:,}"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        else:
            asked = dict(urllib.parse.parse_qsl(query))
            data = self.rfile.read(int(size))
            self._answer(lambda: self.server.answers.segment(data, asked.get("name") or "image", _ids(asked)))

    def parse_request(self) -> bool:
        """Refuses what does not come from the page itself: another site's request, or another host's name."""
        if not super().parse_request():
            return False
        port = self.server.server_port
        hosts = {f"{host}:{port}" for host in (HOST, "localhost")}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in hosts and origin in {None, *(f"http://{host}" for host in hosts)}:
            return True
        self.close_connection = True
        self._refuse(HTTPStatus.FORBIDDEN, "only the page itself may ask")
        return False

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing: a person reads the page."""

    def _answer(self, make: Any) -> None:
        try:
            made = make()
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:
            traceback.print_exc()
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect; the console shows where")
        else:
            if isinstance(made, bytes):
                self._send(made, "image/png")
            else:
                self._send(json.dumps(made).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(json.dumps({"error": message}).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"threshold {text!r}: must be a number in 0 to 1") from None


def _ids(asked: dict[str, str]) -> list[int]:
    try:
        return [int(part) for part in asked.get("labels", "").split(",") if part]
    except ValueError:
        raise InputError(f"labels {asked['labels']!r}: must be ids, such as 1,2") from None
