"""The one connection that all listeners share: they write history and read snapshots and readings on it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Self

from online_migrate.postgres.connection import Connection, Connector

NAME = "observe"
"""its part of application_name"""


class Session:
    """Opened at the first :meth:`get`, again after it was lost, closed at the end.

    Several threads may share it: our connection keeps other threads out of an open transaction.  What is
    written on it need not survive a crash of the server: no decision depends on it.
    """

    def __init__(self, connector: Connector, *, may_be_standby: bool = False) -> None:
        self._connector = replace(
            connector, on_statement=None
        )  # its statements are not counted as the runner's
        self._may_be_standby = may_be_standby
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def get(self) -> Connection:
        """The open connection, opened if necessary; raises what :meth:`Connector.open` raises."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._connector.open(
                    NAME, settings={"synchronous_commit": "off"}, may_be_standby=self._may_be_standby
                )
            return self._connection

    def close(self) -> None:
        """Close the connection; safe to call twice, and without a :meth:`get`."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
