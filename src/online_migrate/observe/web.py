"""The HTTP server of a runner: the routes that it is given, and ``/healthz`` for a supervisor.  Read only."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

import online_migrate
from online_migrate.errors import UsageError

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a path answers."""

    content_type: str
    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    """further ones"""


Route = Callable[[Mapping[str, str]], Page]
"""from the request's headers, their names in lower case, to the page"""


class WebServer:
    """Serves ``routes`` at ``host``, loopback unless the operator says otherwise; port 0 takes a free one."""

    def __init__(self, routes: Mapping[str, Route], *, host: str = LOOPBACK, port: int = 0) -> None:
        self._host = host
        self._port = port
        self._routes: Mapping[str, Route] = {
            **routes,
            "/healthz": lambda _: Page(content_type="text/plain; charset=utf-8", body=b"ok\n"),
        }
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; returns the server's URL.  Raises :class:`UsageError` if the address cannot be used."""
        self._server = _listen(self._host, self._port, self._routes)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="web", daemon=True
        )
        self._thread.start()
        port = self._server.server_address[1]
        return f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}"

    def stop(self) -> None:
        """Stop listening; safe to call twice, and without a start."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join()


def _listen(host: str, port: int, routes: Mapping[str, Route]) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            """Without HTTPServer's lookup of its own name, which can take seconds."""
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()
            self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

        def handle_error(self, *_: object) -> None:
            """A client that disconnects is no error, and nothing may be printed over the live table."""

    class Handler(_Handler):
        pages = routes

    try:
        return Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}", remedy=_remedy(error)) from error


def _remedy(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return (
            "another process, perhaps another runner, uses this port:"
            " choose another --metrics-port, or 0 for a free one"
        )
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return "ports below 1024 need root: choose a higher --metrics-port"
    return f"give an address of this machine, as {LOOPBACK}, and a port from 0 to 65535"


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Route] = {}
    server_version = f"online-migrate/{online_migrate.__version__}"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        route = self.pages.get(urlsplit(self.path).path)
        if route is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain=f"available: {', '.join(self.pages)}")
            return
        page = route({name.lower(): value for name, value in self.headers.items()})
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(page.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Requests are not logged."""
