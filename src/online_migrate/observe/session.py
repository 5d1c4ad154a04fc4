"""The one connection of all that watches a run: history is written on it, snapshots and readings are read."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Self

from online_migrate.postgres.connection import Connection, Connector

NAME = "observe"
"""its part of application_name"""


class Session:
    """Opened when it is first asked for, again after it was lost, closed at the end.

    Several threads may share it: a connection of ours lets nobody else into a transaction that is open.  What is written on
    it need not survive a crash of the server: nothing is decided by it.
    """

    def __init__(self, connector: Connector, *, may_be_standby: bool = False) -> None:
        self._connector = replace(connector, on_statement=None)  # not among the runner's statements
        self._may_be_standby = may_be_standby
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def get(self) -> Connection:
        """The connection that is open now; raises what :meth:`Connector.open` raises where there is none to be had."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._connector.open(
                    NAME, settings={"synchronous_commit": "off"}, may_be_standby=self._may_be_standby
                )
            return self._connection

    def close(self) -> None:
        """Let go; safe to call twice, and without a :meth:`get`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
