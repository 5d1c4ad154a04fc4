"""Settings that role, database or server give to every new session: what they mean for ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.postgres.connection import Connection

SHORTEST_MS = 100
"""a session of ours begins with one message that sets its own settings: 1 ms on a calm server, ten times that
on a busy one"""
_CUTTING = ("statement_timeout", "transaction_timeout", "idle_session_timeout")
"""these count from the session's first moment on, before any setting of ours; transaction_timeout exists
from 17 on"""
_HARMLESS = {
    **dict.fromkeys((*_CUTTING, "lock_timeout", "idle_in_transaction_session_timeout"), ("0",)),
    "default_transaction_read_only": ("off",),
    "default_transaction_isolation": ("read committed",),
    "session_replication_role": ("origin", "local"),
    "enable_tidscan": ("on",),
}
"""values that need no word"""

_GIVEN = """
SELECT s.name, s.reset_val, s.unit,
       CASE WHEN d.setrole <> 0 THEN 'ALTER ROLE ' || quote_ident(session_user)
            WHEN d.setdatabase <> 0 THEN 'ALTER DATABASE ' || quote_ident(current_database())
            WHEN d.setrole = 0 THEN 'ALTER ROLE ALL' END
         || CASE WHEN d.setrole <> 0 AND d.setdatabase <> 0
           THEN ' IN DATABASE ' || quote_ident(current_database()) ELSE '' END
  FROM pg_settings s
  LEFT JOIN LATERAL (
       SELECT d.setrole, d.setdatabase FROM pg_db_role_setting d, unnest(d.setconfig) AS c
        WHERE d.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
          AND d.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
          AND split_part(c, '=', 1) = s.name
        ORDER BY d.setrole = 0, d.setdatabase = 0 LIMIT 1) d ON true
 WHERE s.name = ANY (%s) ORDER BY s.name"""
"""reset_val is what a session has that sets nothing itself; of several ALTERs the most particular one counts
(manual, ALTER ROLE)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A setting that every new session of the role has here."""

    name: str
    value: str
    unit: str
    by: str | None
    """the statement that set it; None: the server's configuration, or the DSN's options"""

    def __str__(self) -> str:
        return f"{self.name} = {self.value}{self.unit} ({self.by or 'the server, or the DSN'})"

    @property
    def remedy(self) -> str:
        return "take it out of the server's settings" if self.by is None else f"{self.by} RESET {self.name}"


def check_settings(connection: Connection) -> Iterator[Finding]:
    """What cuts us off before we can set our own, what switches triggers off, and what our sessions set
    themselves.
    """
    overridden = []
    for given in _read_given(connection):
        if given.name in _CUTTING and int(given.value) < SHORTEST_MS:
            fact = (
                f"a new session begins with {given}, so short that its first statement, which sets our"
                " own, may be cut off"
            )
            remedy = f"{given.remedy}, or options='-c {given.name}=0' in the DSN"
            yield Finding(severity=Severity.STOP, code="cutting_setting", fact=fact, remedy=remedy)
        elif given.name == "session_replication_role":
            fact = (
                f"a new session begins with {given}: no trigger fires for what we write, and no foreign"
                " key is checked"
            )
            yield Finding(severity=Severity.STOP, code="replica_session", fact=fact, remedy=given.remedy)
        else:
            overridden.append(str(given))
    if overridden:
        fact = f"new sessions begin with {', '.join(overridden)}"
        remedy = "nothing: each session of ours sets its own, and its statements are bounded by the plan"
        yield Finding(severity=Severity.INFO, code="session_settings", fact=fact, remedy=remedy)


def _read_given(connection: Connection) -> list[Given]:
    rows = connection.execute(_GIVEN, [list(_HARMLESS)]).fetchall()
    given = [Given(name=name, value=value, unit=unit or "", by=by) for name, value, unit, by in rows]
    return [g for g in given if g.value not in _HARMLESS[g.name]]
