"""A second tenant: a row in every table that belongs to a bot, along every foreign key, read from the
catalog.

Each row is a copy of a row of the first tenant, so that both have the same telegram_id, code and name; where
there is none to copy (an empty table), its values follow from the columns' types.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, LiteralString

from psycopg import sql

from online_migrate.demo.owned_tables import Connection, OwnedColumn, OwnedTable, Reference, read_owned_tables

#: What tenants share: these columns are copied unchanged, so a remaining unique on one of them refuses the
#: row.
SHARED: Final[Mapping[str, str]] = {"users": "telegram_id", "promocodes": "code", "promo_groups": "name"}

_MADE_UP: Final[Mapping[str, LiteralString]] = {
    "B": "false",
    "N": "1",
    "S": "'tenant'",
    "D": "localtimestamp",
    "U": "'{}'",
}
"""By pg_type.typcategory; user-defined are json and jsonb here."""


def create_tenant(connection: Connection, *, bot: int = 2) -> int:
    """Create tenant number ``bot`` with a row in every table that belongs to a bot; returns its bots.id.

    One transaction.  Every foreign key of every row is set: to the tenant's own row where it leads to a
    tenant's table, else as the first tenant has it.  Raises psycopg.errors.UniqueViolation while tenants
    cannot share a telegram_id, a code or a name.
    """
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash)"
            " VALUES (%s, %s, %s, %s) RETURNING id",
            [f"tenant {bot}", f"{bot}:{secrets.token_urlsafe(16)}", f"sha256:{digest[:12]}", digest],
        ).fetchone()
        assert row is not None
        _Copier(connection, int(row[0])).copy()
    return int(row[0])


def delete_tenant(connection: Connection, bot_id: int) -> None:
    """Delete the tenant's row of bots, and by ON DELETE CASCADE all its rows."""
    connection.execute("DELETE FROM bots WHERE id = %s", [bot_id])


def count_rows(connection: Connection, bot_id: int, tables: Collection[str] = ()) -> dict[str, int]:
    """How many rows of each of ``tables``, by default of all that belong to a bot, are the tenant's."""
    counts = {}
    for table in tables or read_owned_tables(connection):
        query = sql.SQL("SELECT count(*) FROM {} WHERE bot_id = %s").format(sql.Identifier(table))
        row = connection.execute(query, [bot_id]).fetchone()
        assert row is not None
        counts[table] = int(row[0])
    return counts


def find_gaps(connection: Connection, bot_id: int) -> list[str]:
    """Where the tenant has no row, or none along a foreign key to a row of its own; empty when it has them
    all.
    """
    owned = read_owned_tables(connection)
    gaps = [f"no row in {table}" for table, rows in count_rows(connection, bot_id).items() if not rows]
    for table in owned:
        for reference in OwnedTable.read(connection, table).references:
            query = sql.SQL(
                "SELECT FROM {mine} AS m JOIN {to} AS p ON {same} WHERE m.bot_id = {bot} {own} LIMIT 1"
            ).format(
                mine=sql.Identifier(table),
                to=sql.Identifier(reference.to),
                same=sql.SQL(" AND ").join(
                    sql.SQL("m.{} = p.{}").format(sql.Identifier(m), sql.Identifier(p))
                    for m, p in zip(reference.columns, reference.theirs, strict=True)
                ),
                bot=bot_id,
                own=sql.SQL("AND p.bot_id = m.bot_id" if reference.to in owned else ""),
            )
            if connection.execute(query).fetchone() is None:
                gaps.append(f"no row of {table} along {reference.name}")
    return gaps


class _Copier:
    """Writes the rows of one new tenant."""

    def __init__(self, connection: Connection, bot_id: int) -> None:
        self._connection = connection
        self._bot_id = bot_id
        self._tables = {name: OwnedTable.read(connection, name) for name in read_owned_tables(connection)}
        self._own: dict[str, dict[str, Any]] = {"bots": {"id": bot_id}}

    def copy(self) -> None:
        """Parents first; references that lead to a later table, to itself or from bots are set at the end."""
        for table in self._in_order():
            self._own[table.name] = self._insert(table)
        for table in (OwnedTable.read(self._connection, "bots"), *self._tables.values()):
            self._set_own_references(table)

    def _in_order(self) -> Iterator[OwnedTable]:
        left = dict(self._tables)
        while left:
            free = [
                t for t in left.values()
                if not any(r.to in left and r.to != t.name for r in t.references)
            ] or [
                t for t in left.values()
                if not any(r.to in left and r.not_null for r in t.references)
            ]  # fmt: skip
            if not free:
                raise ValueError(f"foreign keys in a circle, none of which may be NULL: {', '.join(left)}")
            yield left.pop(free[0].name)

    def _insert(self, table: OwnedTable) -> dict[str, Any]:
        source = sql.SQL("src.{}")
        values = {c.name: self._copied(source, c) for c in table.columns if not c.is_numbered}
        fixed = {c.name for c in table.columns if c.is_numbered}
        for reference in table.references:
            values |= self._referring(source, reference)
            if reference.to in self._own:
                fixed.update(reference.columns)
        for unique in table.uniques:
            if not fixed.intersection(unique) and list(unique) != [SHARED.get(table.name)]:
                column = next(c for c in table.columns if c.name in unique)
                values[column.name] = self._changed(table, column, values[column.name])
                fixed.add(column.name)
        query = sql.SQL(
            "INSERT INTO {table} ({columns}) SELECT {values} FROM (SELECT) AS one LEFT JOIN LATERAL"
            " (SELECT * FROM {table} WHERE bot_id <> {bot} ORDER BY bot_id, num_nulls({columns}), ctid LIMIT"
            " 1)"
            " AS src ON true RETURNING *"
        ).format(
            table=sql.Identifier(table.name),
            columns=sql.SQL(", ").join(map(sql.Identifier, values)),
            values=sql.SQL(", ").join(values.values()),
            bot=self._bot_id,
        )
        cursor = self._connection.execute(query)
        row = cursor.fetchone()
        assert row is not None
        return dict(zip((d.name for d in cursor.description or ()), row, strict=True))

    def _copied(self, source: sql.SQL, column: OwnedColumn) -> sql.Composable:
        copied = source.format(sql.Identifier(column.name))
        if not column.not_null:
            return copied
        if column.default is not None:
            made_up: sql.Composable = sql.SQL(column.default)
        else:
            made_up = sql.SQL("{}::{}").format(sql.SQL(_MADE_UP[column.category]), sql.SQL(column.type))
        return sql.SQL("coalesce({}, {})").format(copied, made_up)

    def _referring(self, source: sql.SQL, reference: Reference) -> dict[str, sql.Composable]:
        """Values of the referring columns: our own row's, NULL for later, or as the first tenant has it."""
        pairs = zip(reference.columns, reference.theirs, strict=True)
        if reference.to in self._own:
            return {mine: sql.Literal(self._own[reference.to][theirs]) for mine, theirs in pairs}
        if reference.to in self._tables:
            return {mine: sql.NULL for mine, _ in pairs}
        any_row = sql.SQL("(SELECT {} FROM {} ORDER BY ctid LIMIT 1)")
        return {
            mine: sql.SQL("coalesce({}, {})").format(
                source.format(sql.Identifier(mine)),
                any_row.format(sql.Identifier(theirs), sql.Identifier(reference.to)),
            )
            for mine, theirs in pairs
        }

    def _changed(self, table: OwnedTable, column: OwnedColumn, value: sql.Composable) -> sql.Composable:
        """A new value for a column whose unique spans all tenants."""
        if column.category == "N":
            highest = sql.SQL("(SELECT coalesce(max({}), 0) + 1 FROM {})")
            return highest.format(sql.Identifier(column.name), sql.Identifier(table.name))
        if column.category == "S":
            suffix = f"-{self._bot_id}"
            kept = sql.Literal((column.length or 1_000_000) - len(suffix))
            return sql.SQL("left({}, {}) || {}").format(value, kept, sql.Literal(suffix))
        raise ValueError(
            f"no way to a new value of {table.name}.{column.name}, which is {column.type} and unique"
        )

    def _set_own_references(self, table: OwnedTable) -> None:
        for reference in table.references:
            if reference.to not in self._tables:
                continue
            row = self._own[reference.to]
            query = sql.SQL("UPDATE {} SET {} WHERE {} = {} AND {} IS NULL").format(
                sql.Identifier(table.name),
                sql.SQL(", ").join(
                    sql.SQL("{} = {}").format(sql.Identifier(mine), sql.Literal(row[theirs]))
                    for mine, theirs in zip(reference.columns, reference.theirs, strict=True)
                ),
                sql.Identifier("id" if table.name == "bots" else "bot_id"),
                self._bot_id,
                sql.Identifier(reference.columns[0]),
            )
            self._connection.execute(query)
