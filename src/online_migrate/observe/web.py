"""The HTTP server of a runner: the routes that it is given, and ``/healthz`` for a supervisor.  Read only."""

from __future__ import annotations

import errno
import re
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import online_migrate
from online_migrate.errors import UsageError

LOOPBACK: Final = "127.0.0.1"
_SHOWN_HOST: Final = 100
_MISDIRECTED: Final = (
    "This server does not answer to the name {name}. Use localhost or the address that it listens on, or"
    " start the runner with --metrics-allow-host NAME."
)


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
    """Serves ``routes`` at ``host``, loopback unless the operator says otherwise; port 0 takes a free one.

    Answers only requests whose Host is a loopback name, the address that they came to, ``host``, or one of
    ``allowed_hosts``: another site's script may reach the port, but only under that site's name (DNS
    rebinding).
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        host: str = LOOPBACK,
        port: int = 0,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self._host = host
        self._port = port
        self._allowed_hosts = frozenset({_plain(host), *map(_plain, allowed_hosts)})
        self._routes: Mapping[str, Route] = {
            **routes,
            "/healthz": lambda _: Page(content_type="text/plain; charset=utf-8", body=b"ok\n"),
        }
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; returns the server's URL.  Raises :class:`UsageError` if the address cannot be used."""
        self._server = _listen(self._host, self._port, self._routes, self._allowed_hosts)
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


def _listen(
    host: str, port: int, routes: Mapping[str, Route], allowed: frozenset[str]
) -> ThreadingHTTPServer:
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
        pages, allowed_hosts = routes, allowed

    try:
        return Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}", remedy=_remedy(error)) from error


def _plain(host: str) -> str:
    """``Shop.example.:9187`` → ``shop.example``, ``[::1]:80`` → ``::1``; an address stays as it is."""
    if host.count(":") > 1 and not host.startswith("["):
        return host.lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


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
    allowed_hosts: frozenset[str] = frozenset()
    server_version = f"online-migrate/{online_migrate.__version__}"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        host = self.headers.get("Host", "")
        if not self._is_allowed(_plain(host)):
            name = re.sub(r"[^\w.:\[\]-]", "?", host, flags=re.ASCII)[:_SHOWN_HOST]
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain=_MISDIRECTED.format(name=name))
            return
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

    def _is_allowed(self, host: str) -> bool:
        """A request without Host is no browser's."""
        if not host or host in self.allowed_hosts or host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        came_to = ip_address(self.connection.getsockname()[0].partition("%")[0])
        return address.is_loopback or address in (came_to, getattr(came_to, "ipv4_mapped", None))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Requests are not logged."""
