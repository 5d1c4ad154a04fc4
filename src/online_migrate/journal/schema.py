"""The journal's schema, online_migrate: created once, and refused if another version of the program created
it.
"""

from __future__ import annotations

from importlib import resources

import psycopg

from online_migrate.errors import JournalVersion, PreflightFailed
from online_migrate.journal.advisory import ADVISORY_KEY
from online_migrate.journal.lease import read_sessions
from online_migrate.journal.upgrades import STEPS
from online_migrate.postgres.connection import Connection

FIRST = 1
"""the version of schema.sql"""
VERSION = FIRST + len(STEPS)
"""of the journal that this program reads and writes"""
_RIGHTS = """
SELECT c.oid IS NOT NULL, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       quote_ident(current_user), quote_ident(pg_get_userbyid(n.nspowner))
  FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'version'
 WHERE n.nspname = 'online_migrate'"""


def read_version(connection: Connection) -> int | None:
    """The version of the journal in this database; None if it has none."""
    row = connection.execute(_RIGHTS).fetchone()
    if row is None or not row[0]:
        return None
    _, may_read, user, owner = row
    if not may_read:
        raise PreflightFailed(
            f"{user} may not read the journal in schema online_migrate, which {owner} owns",
            remedy=f"GRANT USAGE ON SCHEMA online_migrate TO {user}; GRANT SELECT, INSERT, UPDATE, DELETE ON"
            f" ALL TABLES IN SCHEMA online_migrate TO {user}",
        )
    row = connection.execute("SELECT version FROM online_migrate.version").fetchone()
    return None if row is None else int(row[0])


def ensure_readable(connection: Connection) -> bool:
    """Does a journal exist?  Raises :class:`JournalVersion` if it is of another version."""
    version = read_version(connection)
    if version is not None and version != VERSION:
        raise JournalVersion(
            f"the journal in schema online_migrate has version {version}; this program writes version"
            f" {VERSION}",
            remedy=_remedy(version),
        )
    return version is not None


def _remedy(version: int) -> str:
    if version > VERSION:
        return "run the version of online-migrate that created it"
    if version < FIRST:
        return "finish the run with the older program first"
    return "the next `online-migrate run` upgrades it; use the older program until then"


def upgrade_schema(connection: Connection) -> None:
    """Apply the steps that a journal of an older version lacks, all or none.

    Raises :class:`JournalVersion` while a runner works: it may be of the older program.
    """
    version = read_version(connection)
    if version is None or not FIRST <= version < VERSION:
        return
    with connection.transaction():
        _ensure_no_runner(connection, version)
        row = connection.execute("SELECT version FROM online_migrate.version FOR UPDATE").fetchone()
        if row is not None and row[0] < VERSION:  # another program may have upgraded it meanwhile
            _apply_steps(connection, int(row[0]))


def _ensure_no_runner(connection: Connection, version: int) -> None:
    """Keep runners from starting until the transaction ends: one of the older program reads the version under
    the lease.
    """
    row = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", ADVISORY_KEY).fetchone()
    if row is None or not row[0]:
        runner = next((f" ({name}, pid {pid})" for pid, name in read_sessions(connection)), "")
        raise JournalVersion(
            f"the journal in schema online_migrate has version {version}, this program writes version"
            f" {VERSION}, and a runner is at work{runner}",
            remedy="let it finish or stop it with the program that started it, then run the same command"
            " again: it upgrades the journal",
        )


def _apply_steps(connection: Connection, version: int) -> None:
    for step in STEPS[version - FIRST :]:
        connection.execute(step.encode())
    connection.execute("UPDATE online_migrate.version SET version = %s", [VERSION])


def ensure_schema(connection: Connection) -> None:
    """Create the journal unless it exists.  Raises :class:`PreflightFailed` if the role may not, or the name
    is taken.
    """
    if ensure_readable(connection):
        return
    text = resources.files("online_migrate.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute(text)
            _apply_steps(connection, FIRST)
    except (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):
        if not ensure_readable(connection):
            raise PreflightFailed(
                "schema online_migrate exists and is not our journal",
                remedy="rename or drop that schema, then run the same command again",
            ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            f"no right to create the journal's schema: {error.diag.message_primary}",
            remedy=f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {connection.info.user}",
        ) from error
