"""Readers of the standbys that the plan names: ACCESS EXCLUSIVE is replayed there, and stops new readers
behind old ones.

Source: PostgreSQL manual, 26.4.2 "Handling Query Conflicts"; postgres-facts 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from online_migrate.errors import OnlineMigrateError
from online_migrate.postgres.blockers import NO_ANSWER, Blocker, read_blockers
from online_migrate.postgres.connection import Connection, Connector
from online_migrate.postgres.locks import LockMode

_STANDBY_SETTINGS = {"default_transaction_read_only": "on"}


@dataclass(slots=True, kw_only=True)
class Standbys:
    """Sessions on each standby, opened at the first look and again after a loss; ``names`` are conninfo
    strings that replace parts of the primary's (``host=replica-1``).  One that does not answer counts as a
    blocker: fail closed.
    """

    connector: Connector | None = None
    names: Sequence[str] = ()
    _open: dict[str, Connection] = field(default_factory=dict)

    def look(self, needs: Iterable[tuple[int, LockMode]]) -> tuple[Blocker, ...]:
        """Sessions of standbys that hold a lock on a relation of which we want ACCESS EXCLUSIVE."""
        strong = [(oid, mode) for oid, mode in needs if mode is LockMode.ACCESS_EXCLUSIVE]
        if not strong:
            return ()
        return tuple(b for name in self.names for b in self._read_one(name, strong))

    def _read_one(self, name: str, needs: Sequence[tuple[int, LockMode]]) -> tuple[Blocker, ...]:
        try:
            return read_blockers(self._session(name), needs, standby=name)
        except (psycopg.Error, OnlineMigrateError) as error:
            self._forget(name)
            return (_silent(name, str(error).splitlines()[0]),)

    def _session(self, name: str) -> Connection:
        session = self._open.get(name)
        if session is None or session.closed:
            session = open_standby(self.connector, name)
            self._open[name] = session
        return session

    def _forget(self, name: str) -> None:
        session = self._open.pop(name, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        """Close every session; safe to call twice."""
        for name in list(self._open):
            self._forget(name)


def open_standby(connector: Connector | None, name: str) -> Connection:
    """A session on the standby; raises :class:`~online_migrate.postgres.connection.NoServer`."""
    assert connector is not None  # only without names is there none
    dsn = make_conninfo(connector.dsn, **conninfo_to_dict(name))
    beside = Connector(dsn=dsn, schema=connector.schema, application=connector.application)
    return beside.open("standby", settings=_STANDBY_SETTINGS, may_be_standby=True)


def _silent(name: str, reason: str) -> Blocker:
    return Blocker(
        pid=None,
        relation="",
        mode="",
        is_granted=True,
        user=None,
        application=None,
        state=None,
        backend_type=NO_ANSWER,
        age_s=None,
        idle_s=None,
        query=reason,
        prepared=None,
        standby=name,
    )
