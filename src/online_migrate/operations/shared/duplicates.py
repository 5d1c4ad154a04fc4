"""Rows that would keep a unique index from being built, and which of their values may be shown."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from online_migrate.backfill.hazards.rights import read_right_hazards
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import MakesRow
from online_migrate.postgres.connection import Connection

MANUAL = "https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"
EXAMPLES = 5
LOOK_TIMEOUT_S = 5
"""for how long check looks for duplicates: a whole table's sort must not hold its snapshot before every run
"""
KEPT_OUT_TIMEOUT_S = 0.5
"""the same where a unique of the table should keep them out"""


def find_duplicates(
    place: Place, name: str, columns: list[str], *, nulls_not_distinct: bool = False
) -> list[Finding]:
    """Rows that would keep the unique from being built.

    A unique that should keep them out may be corrupt (another collation's order since an upgrade), so
    they are looked for there as well, for a short time, and not by that index.
    """
    table = place.known.table(place.table)
    if table is None or name in {i.name for i in table.indexes if i.is_valid}:
        return []
    there = [c for c in columns if c in table.columns]
    kept_out = not nulls_not_distinct and any(
        i.is_unique and i.is_valid and not i.has_predicate and set(i.columns) <= set(there)
        for i in table.indexes
    )
    if not there or read_right_hazards(place.known.connection, table, ("SELECT",)):
        return []  # the missing right is a finding of its own
    limit_s = KEPT_OUT_TIMEOUT_S if kept_out else LOOK_TIMEOUT_S
    try:
        examples = read_duplicates(
            place.known.connection, place, there, nulls_not_distinct=nulls_not_distinct, limit_s=limit_s
        )
    except psycopg.errors.QueryCanceled:
        if kept_out:
            return []
        what = f"duplicates in ({', '.join(there)}) keep {name} from being built"
        fact = f"{place.table}: could not verify within {LOOK_TIMEOUT_S} s whether {what}"
        remedy = "look for duplicates on a standby before the run; if the build finds some, it is undone"
        return [
            Finding(
                severity=Severity.WARN, code="duplicates_unknown", fact=fact, remedy=remedy, manual=MANUAL
            )
        ]
    if not examples:
        return []
    fact = (
        f"duplicates in {place.table} ({', '.join(there)}) keep {name} from being"
        f" built: {'; '.join(examples)}"
    )
    return [
        Finding(
            severity=Severity.STOP,
            code="duplicates",
            fact=fact,
            remedy="merge or delete these rows",
            manual=MANUAL,
        )
    ]


def read_duplicates(
    connection: Connection,
    place: Place,
    columns: list[str],
    *,
    nulls_not_distinct: bool = False,
    limit_s: float = LOOK_TIMEOUT_S,
) -> list[str]:
    """Some keys that occur more than once, as the server spells them; NULLs are duplicates only where they
    are ``nulls_not_distinct``.

    No index is trusted.  Raises QueryCanceled where ``limit_s`` is not enough.
    """
    keys = sql.SQL(", ").join(map(sql.Identifier, columns))
    texts = sql.SQL(", ").join(sql.SQL("{}::pg_catalog.text").format(sql.Identifier(c)) for c in columns)
    not_null = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in columns)
    wanted = sql.SQL("true") if nulls_not_distinct else not_null
    look = sql.SQL(
        "SELECT count(*), {texts} FROM {table} WHERE {wanted} GROUP BY {keys} HAVING count(*) > 1 LIMIT {n}"
    ).format(texts=texts, keys=keys, table=place.sql_table, wanted=wanted, n=sql.Literal(EXAMPLES))
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(
            sql.SQL(
                "SET LOCAL statement_timeout = {}; SET LOCAL enable_indexscan = off;"
                " SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off"
            ).format(sql.Literal(f"{limit_s * 1000:.0f}ms"))
        )
        rows = connection.execute(look).fetchall()
    secret = secret_columns(place)

    def shown(values: Sequence[object]) -> str:
        pairs = zip(columns, values, strict=True)
        return ", ".join(
            "(not shown)" if column in secret else "NULL" if value is None else str(value)
            for column, value in pairs
        )

    return [f"({shown(values)}) {count} times" for count, *values in rows]


def secret_columns(place: Place) -> frozenset[str]:
    """Columns of the table that hold a secret of the plan: their values are not shown."""
    made = (c.effect for c in place.effects.changes if isinstance(c.effect, MakesRow))
    return frozenset(column for e in made if e.table == place.table for column in e.secret_columns)
