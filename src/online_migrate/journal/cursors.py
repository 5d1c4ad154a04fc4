"""The statement that moves a backfill's cursor inside the transaction of its batch."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from online_migrate.journal.records import CursorRecord
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.search_path import SearchPath, set_local


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorMove:
    """Moves one cursor by compare-and-set; a batch executes it, and commits, in one message to the server.

    The statement raises where the cursor is not at ``before``.  Built once per table: it is the same for
    every batch but for its numbers.  Deferred triggers fire at the COMMIT, with the path that they have in
    the application's sessions.
    """

    begin: bytes
    end: bytes

    @classmethod
    def of(cls, connection: Connection, run_id: int, key: tuple[str, str, str]) -> CursorMove:
        call = sql.SQL("SELECT online_migrate.advance({}, {}, {}, {}").format(run_id, *key)
        path = set_local(connection, SearchPath.ROLE)
        return cls(begin=call.as_bytes(connection), end=path.as_bytes(connection) + b"; COMMIT")

    def statement(self, before: CursorRecord, after: tuple[int, int, int], rows: int) -> bytes:
        """Move it from ``before`` to ``after`` (chunk, stripe, slice), add ``rows``, and commit."""
        numbers = (before.chunk, before.stripe, before.slice, *after, rows)
        return b"%b, %b); %b" % (self.begin, b", ".join(b"%d" % n for n in numbers), self.end)
