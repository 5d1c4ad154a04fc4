"""Answers a browser: the page, its document for each new snapshot, and whether that is fresh."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from online_migrate.clock import Clock, SystemClock
from online_migrate.observe.page.document import draw_text, to_text
from online_migrate.observe.page.files import POLICY, SCRIPTS, TYPES, read_file
from online_migrate.observe.snapshot.memory import Memory
from online_migrate.observe.snapshot.views import Snapshot
from online_migrate.observe.web import Page, Route

READY_S: Final = 30.0
"""an older snapshot is not ready; one is read every twenty seconds, even without a request"""
_SAFE: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    etag: str
    plain: bytes
    packed: bytes


class StatusPage:
    """Draws the newest snapshot on request; safe to update and to ask from different threads.

    ``freshen`` is called before an answer, and may bring a newer snapshot.  A document is made once per
    snapshot, and only on request: a page that is not open costs nothing.
    """

    def __init__(
        self, plan: str, *, freshen: Callable[[], None] = lambda: None, clock: Clock | None = None
    ) -> None:
        self._plan = plan
        self._freshen = freshen
        self._clock = clock or SystemClock()
        self._memory = Memory()
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._updated_at = -READY_S
        self._answer: _Answer | None = None

    @property
    def routes(self) -> Mapping[str, Route]:
        """For :class:`~online_migrate.observe.web.WebServer`."""
        files = ("page.css", "icon.svg", *SCRIPTS)
        return {
            "/": _file("page.html"),
            **{f"/{name}": _file(name) for name in files},
            "/status.json": self._status,
            "/readyz": lambda _: self._ready(),
        }

    def update(self, snapshot: Snapshot) -> None:
        """Take in a newer snapshot."""
        with self._lock:
            self._snapshot, self._answer = snapshot, None
            self._updated_at = self._clock.monotonic()

    def _status(self, headers: Mapping[str, str]) -> Page:
        self._freshen()
        with self._lock:
            if self._answer is None:
                self._answer = _answer(self._plan, self._snapshot, self._memory)
            answer = self._answer
        common = {**_SAFE, "ETag": answer.etag, "Vary": "Accept-Encoding"}
        if headers.get("if-none-match") == answer.etag:
            return Page(content_type=_JSON, body=b"", status=HTTPStatus.NOT_MODIFIED, headers=common)
        if "gzip" in headers.get("accept-encoding", ""):
            return Page(
                content_type=_JSON, body=answer.packed, headers={**common, "Content-Encoding": "gzip"}
            )
        return Page(content_type=_JSON, body=answer.plain, headers=common)

    def _ready(self) -> Page:
        with self._lock:
            age = self._clock.monotonic() - self._updated_at
        if age < READY_S:
            return Page(content_type=_TEXT, body=b"ok\n")
        body = b"no snapshot in the last 30 s: the plan has no run yet, or the database is unreachable\n"
        return Page(content_type=_TEXT, body=body, status=HTTPStatus.SERVICE_UNAVAILABLE)


def _file(name: str) -> Route:
    page = Page(content_type=TYPES[name.rsplit(".", 1)[1]], body=read_file(name).encode(), headers=_SAFE)
    return lambda _: page


def _answer(plan: str, snapshot: Snapshot | None, memory: Memory) -> _Answer:
    if snapshot is None:
        text = to_text({"plan": plan, "state": "starting", "word": "starting", "stages": []})
        etag = '"starting"'
    else:
        text = draw_text(snapshot, memory)
        etag = f'"{snapshot.run_id}-{snapshot.read_at.timestamp()}"'
    plain = text.encode()
    return _Answer(etag=etag, plain=plain, packed=gzip.compress(plain, compresslevel=1, mtime=0))
