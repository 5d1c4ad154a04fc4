"""Single rows: those without a value, the sessions that lock them, and their text for an operator."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg import sql

from online_migrate.backfill.context import By, Target
from online_migrate.postgres.blockers import Blocker, read_blockers, read_sessions
from online_migrate.postgres.catalog import ColumnInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.locks import LockMode


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSet:
    """A few rows by their primary key, which an update of the application keeps; without a primary key by
    TID.
    """

    target: Target
    names: tuple[tuple[str, ...], ...]
    """the key values of each row, as text"""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def by(self) -> By:
        return By.KEY if self.target.key else By.TID

    @property
    def condition(self) -> sql.Composable:
        """One condition per column, so that an index serves it and the server rechecks a row that has just
        moved.

        For a composite key this names more rows than the set; those without a value are few, and any may be
        filled.
        """
        if self.by is By.TID:
            return sql.SQL("ctid OPERATOR(pg_catalog.=) ANY ({}::pg_catalog.tid[])").format(
                sql.Literal([name[0] for name in self.names])
            )
        parts = []
        for column, values in zip(self.target.key, zip(*self.names, strict=True), strict=True):
            parts.append(_is_one_of(self.target.table.columns[column], set(values)))
        return sql.SQL(" AND ").join(parts)

    def __str__(self) -> str:
        """The first three, in the form of a WHERE clause: ``id = 4711; id = 4712``."""
        columns = self.target.key or ("ctid",)
        return "; ".join(
            ", ".join(f"{c} = {v}" for c, v in zip(columns, name, strict=True)) for name in self.names[:3]
        )


def _is_one_of(column: ColumnInfo, values: Collection[str]) -> sql.Composed:
    """ANY would look into the arrays where the values are arrays themselves."""
    name = sql.Identifier(column.name)
    literals = [sql.SQL("{}::{}").format(sql.Literal(v), sql.SQL(column.type)) for v in values]
    if not column.type.endswith("[]"):
        listed = sql.SQL(", ").join(literals)
        return sql.SQL("{} {} ANY (ARRAY[{}])").format(name, column.equals_sql, listed)
    each = [sql.SQL("{} {} {}").format(name, column.equals_sql, one) for one in literals]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(each))


def unfilled_statement(
    table: sql.Composable,
    column: sql.Composable,
    key: Sequence[str],
    *,
    among: RowSet | None = None,
    limit: int | None = None,
) -> sql.Composed:
    """Rows without a value, by primary key or ctid: the proof, as `run` executes and `explain` prints it.

    One statement in one snapshot; it also finds rows that other sessions have locked.
    """
    names = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in key or ("ctid",))
    query = sql.SQL("SELECT {} FROM ONLY {} WHERE {} IS NULL").format(names, table, column)
    if among is not None:
        query += sql.SQL(" AND {}").format(among.condition)
    return query if limit is None else query + sql.SQL(" LIMIT {}").format(sql.Literal(limit))


def late_rows_statement(
    target: Target, among: RowSet | None = None, *, limit: int | None = None
) -> sql.Composed:
    """Rows without a value, as :class:`RowSet` names them."""
    return unfilled_statement(target.sql_table, target.sql_column, target.key, among=among, limit=limit)


def read_late_rows(
    connection: Connection, target: Target, limit: int, *, among: RowSet | None = None
) -> RowSet:
    """Rows without a value, in one snapshot; rows that other sessions have locked count."""
    query = late_rows_statement(target, among, limit=limit)
    return RowSet(target=target, names=tuple(connection.execute(query).fetchall()))


def read_holders(watch: Connection, work: Connection, late: RowSet) -> tuple[Blocker, ...]:
    """The sessions that lock these rows, by their xmax; if it does not tell, those that may lock rows of the
    table.

    Source: PostgreSQL manual, 5.5 "System Columns".  The xmax of a row that several lock is a multixact, and
    no view shows its members.
    """
    table = late.target.table
    rows = sql.SQL("{} t WHERE {} AND {} IS NULL AND t.xmax").format(
        late.target.sql_table, late.condition, late.target.sql_column
    )
    prepared = watch.execute(
        sql.SQL(
            "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts p"
            " WHERE EXISTS (SELECT FROM {} = p.transaction)"
        ).format(rows)
    ).fetchall()
    pids = watch.execute(
        sql.SQL(
            "SELECT DISTINCT l.pid FROM pg_locks l"
            " WHERE l.locktype = 'transactionid' AND l.granted AND l.pid IS NOT NULL"
            " AND EXISTS (SELECT FROM {} = l.transactionid)"
        ).format(rows)
    ).fetchall()
    if prepared:
        return tuple(_prepared(table, gid, age_s) for gid, age_s in prepared)
    sessions = read_sessions(watch, [int(pid) for (pid,) in pids])
    if sessions:
        return sessions
    return read_blockers(watch, [(table.oid, LockMode.EXCLUSIVE)], mine=[work.info.backend_pid])


def _prepared(table: TableInfo, gid: str, age_s: float) -> Blocker:
    return Blocker(
        pid=None,
        relation=table.name,
        mode="",
        is_granted=True,
        user=None,
        application=None,
        state=None,
        backend_type=None,
        age_s=age_s,
        idle_s=None,
        query="",
        prepared=gid,
    )


def describe_rows(connection: Connection, table: TableInfo, among: Sequence[str]) -> str:
    """Rows by their primary key, or by ctid, in the form of a WHERE clause: ``id = 4711; id = 4712``."""
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
