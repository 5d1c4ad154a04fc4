"""A TCP proxy between a runner and its server that knows where one request of PostgreSQL's protocol ends.

It shows each request to one function before the server gets it, and does with the connection what that
function says.

Source: PostgreSQL manual, 55 "Frontend/Backend Protocol", version 3.0.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Final

_STARTUP: Final = 3 << 16
_ASKS_FOR_ENCRYPTION: Final = {80877103, 80877104}  # SSLRequest, GSSENCRequest
_ENDS_A_REQUEST: Final = {b"Q", b"S", b"F"}  # Query, Sync, FunctionCall
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST
_CONNECT_S: Final = 5.0


class Cut(Enum):
    """What happens to the connection at a request."""

    NOTHING = "nothing"
    BEFORE = "before"
    """the server never gets it"""
    AFTER = "after"
    """the server gets it, and finds the connection closed when it answers"""
    ANSWER = "answer"
    """the server has answered in full, its commit included; the client gets a reset instead"""
    HALF_OPEN = "half open"
    """the server gets it; the client gets a reset, the server's side stays open and is read"""
    SWALLOW = "swallow"
    """neither side gets anything more from the other; after :data:`SILENT_S` both connections are closed"""


SILENT_S: Final = 2.0
"""how long :attr:`Cut.SWALLOW` is silent; in production tcp_user_timeout ends it after 30 s"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request: a Query, or all messages up to a Sync."""

    number: int
    """from 1, over all sessions"""
    session: str
    """its application_name"""
    pid: int
    """of the server's process, 0 while it is unknown"""
    statement: bytes
    parameters: bytes
    """the Bind message, as it is; empty for a Query"""

    @property
    def text(self) -> str:
        """Its statement, for people; at most 200 characters."""
        return " ".join(self.statement.decode(errors="replace").split())[:200]

    @property
    def is_commit(self) -> bool:
        """Whether it is the COMMIT of a transaction block."""
        return self.statement == b"COMMIT"


@dataclass(slots=True, kw_only=True)
class _Pair:
    """One client's connection and ours to the server."""

    client: socket.socket
    server: socket.socket
    session: str = ""
    pid: int = 0
    cut: Cut = Cut.NOTHING
    is_answered: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        _reset(self.client)
        _close(self.server)


@dataclass(slots=True, kw_only=True)
class Proxy:
    """Listens on ``port`` of the loopback; ``target`` is the server's port and may change, as a virtual
    address does.
    """

    target: int
    at_request: Callable[[Request], Cut] = lambda _: Cut.NOTHING
    """called in the connection's own thread: while it waits, only this connection waits"""
    port: int = field(init=False)
    requests: int = field(init=False, default=0)
    _listener: socket.socket = field(init=False)
    _pairs: list[_Pair] = field(init=False, default_factory=list)
    _threads: list[threading.Thread] = field(init=False, default_factory=list)
    _refuse_until: float = field(init=False, default=0.0)
    _is_closed: bool = field(init=False, default=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._begin(self._accept)

    def close(self) -> None:
        """Close every connection and wait for the threads."""
        self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in list(self._threads):
            thread.join(10)

    def cut_all(self, *, refuse_s: float = 0.0) -> None:
        """Reset all connections, and every new one for so many seconds."""
        self._refuse_until = monotonic() + refuse_s
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if monotonic() < self._refuse_until:
                _reset(client)
            else:
                self._begin(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=_CONNECT_S)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = _Pair(client=client, server=server)
        with self._lock:
            self._pairs.append(pair)
        try:
            if self._start_session(pair):
                self._begin(self._backwards, pair)
                self._forwards(pair)
        except OSError:
            pass
        finally:
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        """Close what is not to stay open."""
        if pair.cut is Cut.ANSWER:
            pair.is_answered.wait()
        if pair.cut is Cut.NOTHING:
            _close(pair.client)
        else:
            _reset(pair.client)
        if pair.cut is not Cut.HALF_OPEN or self._is_closed:
            _close(pair.server)

    # what the client sends

    def _start_session(self, pair: _Pair) -> bool:
        """Its first packet is sent on; False where it was the request to cancel
        another session's statement.
        """
        while True:
            size = _receive(pair.client, 4)
            packet = _receive(pair.client, struct.unpack(">i", size)[0] - 4)
            code = struct.unpack(">i", packet[:4])[0]
            if code in _ASKS_FOR_ENCRYPTION:
                pair.client.sendall(b"N")
                continue
            pair.server.sendall(size + packet)
            if code != _STARTUP:
                return self._await_cancelled(pair)
            words = packet[4:].split(b"\0")
            given = dict(zip(words[::2], words[1::2], strict=False))
            pair.session = given.get(b"application_name", b"").decode()
            return True

    def _await_cancelled(self, pair: _Pair) -> bool:
        """The server closes the connection when it has taken the request."""
        pair.server.settimeout(_CONNECT_S)
        while pair.server.recv(64):
            pass
        return False

    def _forwards(self, pair: _Pair) -> None:
        group, statement, parameters = b"", b"", b""
        for kind, message in _messages(pair.client):
            group += message
            if kind == b"Q":
                statement = message[5:-1]
            elif kind == b"P":  # the statement's name, its text
                statement = message[5:].split(b"\0")[1]
            elif kind == b"B":
                parameters = message[5:]
            if kind in _ENDS_A_REQUEST:
                if not self._send_on(pair, group, statement, parameters):
                    return
                group, statement, parameters = b"", b"", b""
            elif kind in b"pX":  # a password, the end
                pair.server.sendall(group)
                group = b""

    def _send_on(self, pair: _Pair, group: bytes, statement: bytes, parameters: bytes) -> bool:
        """Whether the connection goes on."""
        with self._lock:
            self.requests += 1
            number = self.requests
        request = Request(
            number=number, session=pair.session, pid=pair.pid, statement=statement, parameters=parameters
        )
        pair.cut = cut = self.at_request(request)
        if cut in (Cut.NOTHING, Cut.AFTER, Cut.ANSWER, Cut.HALF_OPEN):
            pair.server.sendall(group)
        if cut is Cut.SWALLOW:
            threading.Event().wait(SILENT_S)
        return cut is Cut.NOTHING

    # what the server sends

    def _backwards(self, pair: _Pair) -> None:
        try:
            for kind, message in _messages(pair.server):
                if kind == b"K":  # BackendKeyData
                    pair.pid = struct.unpack(">i", message[5:9])[0]
                if pair.cut is Cut.NOTHING:
                    pair.client.sendall(message)
                elif pair.cut is Cut.ANSWER and kind == b"Z":  # ReadyForQuery: all is done, the commit too
                    return
        except OSError:
            pass
        finally:
            _close(pair.server)
            pair.is_answered.set()
            if pair.cut is Cut.NOTHING:
                _close(pair.client)


def _messages(end: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    """Each message with its type, until the other side closes (raises OSError then)."""
    while True:
        head = _receive(end, 5)
        yield head[:1], head + _receive(end, struct.unpack(">i", head[1:])[0] - 4)


def _receive(end: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        part = end.recv(size - len(found))
        if not part:
            raise ConnectionResetError("closed by the other side")
        found += part
    return bytes(found)


def _close(end: socket.socket) -> None:
    """Close it, and wake the thread that reads from it; safe to call twice."""
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


def _reset(end: socket.socket) -> None:
    """Close it so that the other side gets ECONNRESET, as from an unreachable network or host.

    A thread that reads from it keeps it open beyond close(): SHUT_RD, which sends nothing, wakes that thread.
    """
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)
    end.close()


@contextmanager
def start_proxy(target: int, at_request: Callable[[Request], Cut] = lambda _: Cut.NOTHING) -> Iterator[Proxy]:
    """A proxy that is closed afterwards."""
    proxy = Proxy(target=target, at_request=at_request)
    try:
        yield proxy
    finally:
        proxy.close()
