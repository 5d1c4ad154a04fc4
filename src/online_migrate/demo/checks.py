"""Checks of what must hold after the plan has run on the shop; each reads the database, not the demo's
memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from online_migrate.demo.dump import DIFFERS_BY_RUN, rows_digest, schema_dump
from online_migrate.demo.owned_tables import read_owned_tables
from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES
from online_migrate.demo.tenant import SHARED, count_rows, delete_tenant, find_gaps

__all__ = ["DIFFERS_BY_RUN", "Check", "check_owner", "final_checks", "rows_digest", "schema_dump"]

Connection = psycopg.Connection[tuple[Any, ...]]

#: The brief's seven tables.
NEW_TABLES: Final = (
    "bots",
    "bot_feature_flags",
    "bot_configurations",
    "tenant_payment_cards",
    "bot_plans",
    "card_to_card_payments",
    "zarinpal_payments",
)

#: The brief's 16 indexes on them.
NEW_INDEXES: Final = (
    "idx_bots_api_token_hash",
    "idx_bots_telegram_token",
    "idx_bots_is_master",
    "idx_bots_is_active",
    "idx_bot_feature_flags_bot_id",
    "idx_bot_feature_flags_enabled",
    "idx_bot_configurations_bot_id",
    "idx_tenant_payment_cards_bot_id",
    "idx_tenant_payment_cards_active",
    "idx_bot_plans_bot_id",
    "idx_bot_plans_active",
    "idx_card_payments_bot_user",
    "idx_card_payments_tracking",
    "idx_card_payments_status",
    "idx_zarinpal_bot_user",
    "idx_zarinpal_authority",
)

COMPOSITE_UNIQUES: Final = ("idx_users_telegram_bot", "idx_promocodes_bot_code", "idx_promo_groups_bot_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A promise and whether it holds; ``detail`` says what was found."""

    name: str
    ok: bool
    detail: str


Found = tuple[Sequence[object], str]
"""what breaks a promise, and the detail to show when nothing does"""


def check_owner(connection: Connection, tables: Collection[str]) -> Check:
    """Before a second tenant is created: every row of every table of the set is the master bot's."""
    foreign_rows, rows = [], 0
    for table in tables:
        query = sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE bot_id IS DISTINCT FROM (SELECT id FROM bots WHERE"
            " is_master))"
            " FROM {}"
        ).format(sql.Identifier(table))
        for total, others in connection.execute(query):
            rows += total
            foreign_rows += [f"{others} rows of {table}"] if others else []
    name = "every row is the master bot's"
    return _look(connection, name, lambda: (foreign_rows, f"{rows} rows in {len(tables)} tables"))


def final_checks(
    connection: Connection,
    *,
    tables: Collection[str],
    tenant: int,
    failures: Sequence[object],
    secrets: Collection[str],
    handed_over: Collection[str],
) -> tuple[Check, ...]:
    """Every check after the run, when the second tenant exists and the traffic has stopped.

    ``tables`` are the plan's set as the journal froze it; ``tenant`` is the second tenant's bots.id;
    ``failures`` are the application's.  The journal must contain neither ``secrets`` nor the tokens that the
    runner generated and has ``handed_over``.
    """
    missing = sorted(set(BRIEF_TABLES + FURTHER_TABLES).symmetric_difference(tables))
    hidden = [*secrets, *handed_over]

    def every(query: LiteralString) -> Callable[[], Found]:
        return lambda: _without(connection, tables, query)

    def named(query: LiteralString, wanted: Collection[str]) -> Callable[[], Found]:
        return lambda: _missing(connection, query, wanted)

    promises: dict[str, Callable[[], Found]] = {
        "the table set is right": lambda: (missing, f"{len(tables)} tables"),
        "bot_id is NOT NULL": every(_NOT_NULL),
        "bot_id references bots ON DELETE CASCADE, validated": every(_REFERS),
        "idx_<table>_bot_id exists and is valid": every(_INDEXED),
        "bot_id has no default": every(_NO_DEFAULT),
        "no unique on telegram_id, code or name alone is left": lambda: _find_old_uniques(connection),
        "the composite uniques are valid": named(_VALID_UNIQUES, COMPOSITE_UNIQUES),
        "the seven new tables exist": named(_TABLES, NEW_TABLES),
        "the brief's 16 indexes are valid": named(_VALID_INDEXES, NEW_INDEXES),
        "no index is invalid": lambda: (_column(connection, _INVALID), "none in the database"),
        ("no constraint is left to"
            " validate"): lambda: (_column(connection, _UNVALIDATED), "none in the database"),
        ("one master bot, its api_token masked, the token handed"
            " over"): lambda: _look_at_token(connection, handed_over),
        "the journal contains no secret": lambda: _search_journal(connection, hidden),
        "two tenants share telegram_id, code and name": lambda: _look_at_sharing(connection, tenant),
        ("tenant 2 has a row in every table and along every foreign"
            " key"): lambda: (find_gaps(connection, tenant), "no gap"),
        ("DELETE FROM bots removes the tenant from every"
            " table"): lambda: _try_deletion(connection, tenant, tables),
        "no transaction of the application failed": lambda: (failures, "0 failures"),
    }  # fmt: skip
    return tuple(_look(connection, name, promise) for name, promise in promises.items())


def _look(connection: Connection, name: str, promise: Callable[[], Found]) -> Check:
    """Holds if nothing was found that breaks it; a query that the server refuses breaks it too."""
    try:
        with connection.transaction():
            found, otherwise = promise()
    except psycopg.Error as error:
        found, otherwise = [str(error).strip()], ""
    few = ", ".join(map(str, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return Check(name=name, ok=not found, detail=few or otherwise)


_NOT_NULL: Final = """
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = 'bot_id' AND a.attnotnull
       AND a.atttypid = 'integer'::regtype"""
_NO_DEFAULT: Final = """
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = 'bot_id'
      AND NOT a.atthasdef"""
_REFERS: Final = """
    SELECT 1 FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid
      AND c.conkey = ARRAY[a.attnum]
     WHERE c.conrelid = %s::regclass AND c.confrelid = 'bots'::regclass AND a.attname = 'bot_id'
       AND c.confdeltype = 'c' AND c.convalidated"""
_INDEXED: Final = """
    SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND i.indkey::text = a.attnum::text
     WHERE c.relname = 'idx_' || %s || '_bot_id' AND a.attname = 'bot_id' AND i.indisvalid
       AND i.indpred IS NULL"""
_OLD_UNIQUE: Final = """
    SELECT i.indexrelid::regclass::text FROM pg_index i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND i.indkey::text = a.attnum::text
     WHERE i.indrelid = %s::regclass AND a.attname = %s AND i.indisunique"""
_VALID_INDEXES: Final = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indisvalid
      AND i.indisready"""
_VALID_UNIQUES: Final = _VALID_INDEXES + " AND i.indisunique"
_TABLES: Final = "SELECT relname FROM pg_class WHERE relkind = 'r'"
_INVALID: Final = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
_UNVALIDATED: Final = "SELECT conrelid::regclass || '.' || conname FROM pg_constraint WHERE NOT convalidated"


def _column(connection: Connection, query: LiteralString, params: Sequence[object] = ()) -> list[Any]:
    return [row[0] for row in connection.execute(query, params)]


def _without(connection: Connection, tables: Collection[str], query: LiteralString) -> Found:
    return [f"not {t}" for t in tables if not _column(connection, query, [t])], f"all {len(tables)} tables"


def _missing(connection: Connection, query: LiteralString, wanted: Collection[str]) -> Found:
    there = set(_column(connection, query))
    return [f"no {name}" for name in wanted if name not in there], f"all {len(wanted)}"


def _find_old_uniques(connection: Connection) -> Found:
    left = [
        index
        for table, column in SHARED.items()
        for index in _column(connection, _OLD_UNIQUE, [table, column])
    ]
    return left, "none left"


def _look_at_token(connection: Connection, handed_over: Collection[str]) -> Found:
    """The master's api_token is masked, and its hash is that of a token which the runner handed over."""
    rows = connection.execute("SELECT api_token, api_token_hash FROM bots WHERE is_master").fetchall()
    digests = {hashlib.sha256(token.encode()).hexdigest() for token in handed_over}
    wrong = [f"{len(rows)} master bots"] if len(rows) != 1 else []
    for token, digest in rows:
        wrong += ["api_token is not masked"] if token != f"sha256:{digest[:12]}" else []
        wrong += ["api_token_hash matches no token that was handed over"] if digest not in digests else []
    return wrong, "as promised"


def _search_journal(connection: Connection, secrets: Collection[str]) -> Found:
    tables = _column(
        connection,
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'online_migrate'::regnamespace",
    )
    found = []
    for table in tables:
        query = sql.SQL(
            "SELECT count(*) FROM {} AS t"
            " WHERE EXISTS (SELECT FROM unnest(%s::text[]) AS s WHERE position(s IN t::text) > 0)"
        ).format(sql.Identifier("online_migrate", table))
        for (rows,) in connection.execute(query, [list(secrets)]):
            found += [f"{rows} rows of {table}"] if rows else []
    return found, f"{len(secrets)} secrets, {len(tables)} tables searched"


def _look_at_sharing(connection: Connection, tenant: int) -> Found:
    alone = []
    for table, column in SHARED.items():
        query = sql.SQL(
            "SELECT count(*) FROM {table} AS m JOIN {table} AS t USING ({column}) JOIN bots b ON b.id ="
            " m.bot_id"
            " WHERE b.is_master AND t.bot_id = %s"
        ).format(table=sql.Identifier(table), column=sql.Identifier(column))
        alone += [f"no {table}.{column}" for (rows,) in connection.execute(query, [tenant]) if not rows]
    return alone, "all three"


def _try_deletion(connection: Connection, tenant: int, tables: Collection[str]) -> Found:
    """Delete the tenant, count its rows, and roll back."""
    (master,) = _column(connection, "SELECT id FROM bots WHERE is_master")
    checked = sorted({*tables, *read_owned_tables(connection)})
    with connection.transaction(force_rollback=True):
        before = count_rows(connection, master, checked)
        rows = sum(count_rows(connection, tenant, checked).values())
        delete_tenant(connection, tenant)
        left = [f"{n} rows of {t}" for t, n in count_rows(connection, tenant, checked).items() if n]
        if count_rows(connection, master, checked) != before:
            left.append("rows of the master bot were deleted too")
    return left if rows else ["nothing to delete"], f"{rows} rows deleted, none of the master's"
