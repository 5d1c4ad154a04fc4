"""Single rows: which are without a value, which are free, who holds them, and what an operator calls them."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from online_migrate.backfill.bench import Target
from online_migrate.postgres.blockers import read_blockers, read_sessions
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode


def read_late_rows(
    connection: Connection, target: Target, limit: int, *, among: Sequence[str] | None = None
) -> tuple[str, ...]:
    """TIDs of rows without a value, in one snapshot; rows that others have locked count."""
    narrowed: sql.Composable = sql.SQL("")
    if among is not None:
        narrowed = sql.SQL("ctid = ANY ({}::tid[]) AND ").format(sql.Literal(list(among)))
    found = connection.execute(
        sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {}{} IS NULL LIMIT {}").format(
            target.sql_table, narrowed, target.sql_column, sql.Literal(limit)
        )
    ).fetchall()
    return tuple(r[0] for r in found)


def read_free_rows(connection: Connection, target: Target, among: Sequence[str]) -> tuple[str, ...]:
    """Those of the rows that are without a value and that nobody holds against us."""
    found = connection.execute(
        sql.SQL(
            "SELECT ctid::text FROM ONLY {} WHERE ctid = ANY ({}::tid[]) AND {} IS NULL FOR NO KEY UPDATE SKIP LOCKED"
        ).format(target.sql_table, sql.Literal(list(among)), target.sql_column)
    ).fetchall()
    return tuple(r[0] for r in found)


def read_holders(
    watch: Connection, work: Connection, table: TableInfo, among: Sequence[str]
) -> tuple[str, ...]:
    """Who holds these rows, by the transaction that stands in their xmax; else whoever may hold rows of the table.

    Source: PostgreSQL manual, 5.5 "System Columns"; a row that several share shows a multixact, which is in no view.
    """
    rows = sql.SQL("{} t WHERE t.ctid = ANY ({}::tid[]) AND t.xmax").format(
        sql.Identifier(table.schema, table.name), sql.Literal(list(among))
    )
    prepared = watch.execute(
        sql.SQL(
            "SELECT gid, prepared::timestamptz(0)::text FROM pg_prepared_xacts p WHERE EXISTS (SELECT FROM {} = p.transaction)"
        ).format(rows)
    ).fetchall()
    pids = watch.execute(
        sql.SQL(
            "SELECT DISTINCT l.pid FROM pg_locks l WHERE l.locktype = 'transactionid' AND l.granted AND l.pid IS NOT NULL"
            " AND EXISTS (SELECT FROM {} = l.transactionid)"
        ).format(rows)
    ).fetchall()
    if prepared:
        return tuple(
            f"prepared transaction {gid!r} of {at}: COMMIT PREPARED or ROLLBACK PREPARED it"
            for gid, at in prepared
        )
    sessions = read_sessions(watch, [int(pid) for (pid,) in pids])
    if not sessions:
        sessions = read_blockers(watch, [(table.oid, LockMode.EXCLUSIVE)], mine=[work.info.backend_pid])
    return tuple(map(str, sessions))


def describe_rows(connection: Connection, table: TableInfo, among: Sequence[str]) -> str:
    """``id = 4711; id = 4712``: rows by their primary key, as an operator finds them again; without one by ctid."""
    key = next((c.columns for c in table.constraints if c.kind == "p"), ())
    if not key:
        return "; ".join(f"ctid = {ctid}" for ctid in among)
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in key)
    found = connection.execute(
        sql.SQL("SELECT {} FROM ONLY {} WHERE ctid = ANY ({}::tid[]) ORDER BY {}").format(
            columns,
            sql.Identifier(table.schema, table.name),
            sql.Literal(list(among)),
            sql.SQL(", ").join(map(sql.Identifier, key)),
        )
    ).fetchall()
    return "; ".join(", ".join(f"{c} = {v}" for c, v in zip(key, row, strict=True)) for row in found)
