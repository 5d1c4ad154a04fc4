"""Holds while multixacts run out: sessions that lock one parent row by foreign keys use thousands of them per
second.

Two counters wrap around (manual, 25.1.5.1 "Multixacts and Wraparound"): the ids, which VACUUM must freeze in
time, and the space of their members, which no view shows up to version 18.  The number of files in
pg_multixact/members shows it, as of the last checkpoint, which writes all pages.
"""

from __future__ import annotations

from typing import Final

from online_migrate.backfill.throttlers.base import Reading, bounded
from online_migrate.postgres.connection import Connection

MOST_MEMBERS: Final = 2**32
"""members; an offset has 32 bits (multixact.c); above half of them every autovacuum is an aggressive one"""
MEMBERS_PER_FILE: Final = 1636 * 32
"""members; 409 groups of four on a page of 8 KiB, 32 pages a file (multixact.c)"""

_AGE: Final = """
    SELECT mxid_age(datminmxid), current_setting('autovacuum_multixact_freeze_max_age')::bigint, datname
      FROM pg_database WHERE datname = current_database()"""
_MEMBERS: Final = "SELECT count(*) FROM pg_ls_dir('pg_multixact/members')"


class Multixacts:
    """Red from a share (0…1) of autovacuum_multixact_freeze_max_age in this database, or of the members'
    space.

    Reading the members needs the right to execute pg_ls_dir, which only superusers have by default.
    """

    name = "multixacts"

    def __init__(self, *, age_share: float | None = None, members_share: float | None = None) -> None:
        if age_share is None and members_share is None:
            raise ValueError("multixacts needs a limit, of age or of members")
        self._age_share = age_share
        self._members_share = members_share

    def blind(self, connection: Connection) -> str | None:
        row = connection.execute(
            "SELECT has_function_privilege('pg_ls_dir(text)', 'EXECUTE'), quote_ident(current_user)"
        ).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        if self._members_share is None or row[0]:
            return None
        return f"GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {row[1]}"

    def read(self, connection: Connection) -> Reading:
        readings = []
        with bounded(connection):
            if self._age_share is not None:
                readings.append(self._read_age(connection, self._age_share))
            if self._members_share is not None:
                readings.append(self._read_members(connection, self._members_share))
        return max(readings, key=lambda r: r.utilisation)

    def _read_age(self, connection: Connection, share: float) -> Reading:
        row = connection.execute(_AGE).fetchone()
        assert row is not None  # we are connected to it
        age, most, name = row
        limit = most * share
        return Reading(
            name=self.name,
            utilisation=age / limit,
            reason=f"the oldest multixact of database {name} is {age:,} ids old"
            f" (limit {limit:,.0f}, {share:.4g} of autovacuum_multixact_freeze_max_age);"
            " make sure that VACUUM (FREEZE) completes",
        )

    def _read_members(self, connection: Connection, share: float) -> Reading:
        row = connection.execute(_MEMBERS).fetchone()
        assert row is not None  # an aggregate has one row
        used, limit = row[0] * MEMBERS_PER_FILE, MOST_MEMBERS * share
        return Reading(
            name=self.name,
            utilisation=used / limit,
            reason=f"multixacts use the space of {used:,} members (limit {limit:,.0f}, {share:.4g} of all);"
            " make sure that VACUUM (FREEZE) completes in every database",
        )
