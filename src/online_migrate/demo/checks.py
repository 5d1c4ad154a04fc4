"""What must hold when the plan has run on the shop; each check reads the world, not our memory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from online_migrate.demo.dump import DIFFERS_BY_RUN, rows_digest, schema_dump
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
    """A promise and whether it was kept; ``detail`` says what was found."""

    name: str
    ok: bool
    detail: str


def _none_of(name: str, found: Sequence[object], otherwise: str) -> Check:
    """Kept when nothing was found that breaks it; else the first few that do."""
    few = ", ".join(map(str, found[:5])) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    return Check(name=name, ok=not found, detail=few or otherwise)


def check_owner(connection: Connection, tables: Collection[str]) -> Check:
    """Before a second tenant is there: every row of every table of the set is the master bot's."""
    strangers, rows = [], 0
    for table in tables:
        query = sql.SQL(
            "SELECT count(*), count(*) FILTER (WHERE bot_id IS DISTINCT FROM (SELECT id FROM bots WHERE is_master))"
            " FROM {}"
        ).format(sql.Identifier(table))
        for total, others in connection.execute(query):
            rows += total
            strangers += [f"{others} rows of {table}"] if others else []
    return _none_of("every row is the master bot's", strangers, f"{rows} rows in {len(tables)} tables")


def final_checks(
    connection: Connection,
    *,
    tables: Collection[str],
    tenant: int,
    failures: Sequence[object],
    secrets: Collection[str],
    handed_over: Collection[str],
) -> tuple[Check, ...]:
    """Every check after the run, with the second tenant there and the traffic over.

    ``tables`` are the plan's set as the journal froze it; ``tenant`` is the second tenant's bots.id; ``failures`` are
    the application's; ``secrets`` are values that must stand nowhere in the journal, nor may those that were
    ``handed_over``: the tokens that the runner made.
    """
    missing = set(BRIEF_TABLES + FURTHER_TABLES).symmetric_difference(tables)
    return (
        _none_of("the table set is right", sorted(missing), f"{len(tables)} tables"),
        _every_table(connection, tables, "bot_id is NOT NULL", _NOT_NULL),
        _every_table(connection, tables, "bot_id refers to bots ON DELETE CASCADE, validated", _REFERS),
        _every_table(connection, tables, "idx_<table>_bot_id is there and valid", _INDEXED),
        _every_table(connection, tables, "bot_id has no default any more", _NO_DEFAULT),
        _check_old_uniques(connection),
        _check_names(connection, "the composite uniques are valid", _VALID_UNIQUES, COMPOSITE_UNIQUES),
        _check_names(connection, "the seven new tables are there", _TABLES, NEW_TABLES),
        _check_names(connection, "the brief's 16 indexes are valid", _VALID_INDEXES, NEW_INDEXES),
        _none_of("no index is invalid", _column(connection, _INVALID), "none in the database"),
        _none_of("no constraint is left to validate", _column(connection, _UNVALIDATED), "none in the database"),
        _check_token(connection, handed_over),
        _check_journal(connection, [*secrets, *handed_over]),
        _check_sharing(connection, tenant),
        _none_of("tenant 2 has a row in every table, along every foreign key", find_gaps(connection, tenant), "no gap"),
        _check_deletion(connection, tenant),
        _none_of("no transaction of the application failed", failures, "0 failures"),
    )  # fmt: skip


_NOT_NULL: Final = """
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = 'bot_id' AND a.attnotnull
       AND a.atttypid = 'integer'::regtype"""
_NO_DEFAULT: Final = """
    SELECT 1 FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attname = 'bot_id' AND NOT a.atthasdef"""
_REFERS: Final = """
    SELECT 1 FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
     WHERE c.conrelid = %s::regclass AND c.confrelid = 'bots'::regclass AND a.attname = 'bot_id'
       AND c.confdeltype = 'c' AND c.convalidated"""
_INDEXED: Final = """
    SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND i.indkey::text = a.attnum::text
     WHERE c.relname = 'idx_' || %s || '_bot_id' AND a.attname = 'bot_id' AND i.indisvalid AND i.indpred IS NULL"""
_OLD_UNIQUE: Final = """
    SELECT i.indexrelid::regclass::text FROM pg_index i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND i.indkey::text = a.attnum::text
     WHERE i.indrelid = %s::regclass AND a.attname = %s AND i.indisunique"""
_VALID_INDEXES: Final = """
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indisvalid AND i.indisready"""
_VALID_UNIQUES: Final = _VALID_INDEXES + " AND i.indisunique"
_TABLES: Final = "SELECT relname FROM pg_class WHERE relkind = 'r'"
_INVALID: Final = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
_UNVALIDATED: Final = "SELECT conrelid::regclass || '.' || conname FROM pg_constraint WHERE NOT convalidated"


def _column(connection: Connection, query: LiteralString, params: Sequence[object] = ()) -> list[Any]:
    return [row[0] for row in connection.execute(query, params)]


def _every_table(connection: Connection, tables: Collection[str], name: str, query: LiteralString) -> Check:
    without = [table for table in tables if not _column(connection, query, [table])]
    return _none_of(name, [f"not {t}" for t in without], f"all {len(tables)} tables")


def _check_names(connection: Connection, name: str, query: LiteralString, wanted: Collection[str]) -> Check:
    there = set(_column(connection, query))
    return _none_of(name, [f"no {n}" for n in wanted if n not in there], f"all {len(wanted)}")


def _check_old_uniques(connection: Connection) -> Check:
    left = [
        index
        for table, column in SHARED.items()
        for index in _column(connection, _OLD_UNIQUE, [table, column])
    ]
    return _none_of("no unique on telegram_id, code or name alone is left", left, "gone")


def _check_token(connection: Connection, handed_over: Collection[str]) -> Check:
    """The master's api_token is masked, and its hash is that of a token which the runner handed over."""
    rows = connection.execute("SELECT api_token, api_token_hash FROM bots WHERE is_master").fetchall()
    digests = {hashlib.sha256(token.encode()).hexdigest() for token in handed_over}
    wrong = [f"{len(rows)} master bots"] if len(rows) != 1 else []
    for token, digest in rows:
        wrong += [f"api_token {token[:8]}… is not masked"] if token != f"sha256:{digest[:12]}" else []
        wrong += ["api_token_hash is of no token that was handed over"] if digest not in digests else []
    return _none_of("one master bot, its api_token masked, the token handed over", wrong, "so it is")


def _check_journal(connection: Connection, secrets: Collection[str]) -> Check:
    tables = _column(
        connection,
        "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'online_migrate'::regnamespace",
    )
    found = []
    for table in tables:
        query = sql.SQL(
            "SELECT count(*) FROM {} AS t"
            " WHERE EXISTS (SELECT FROM unnest(%s::text[]) AS s WHERE position(s IN t::text) > 0)"
        )
        for (rows,) in connection.execute(
            query.format(sql.Identifier("online_migrate", table)), [list(secrets)]
        ):
            found += [f"{rows} rows of {table}"] if rows else []
    return _none_of(
        "no secret stands in the journal", found, f"{len(secrets)} secrets, {len(tables)} tables searched"
    )


def _check_sharing(connection: Connection, tenant: int) -> Check:
    alone = []
    for table, column in SHARED.items():
        query = sql.SQL(
            "SELECT count(*) FROM {table} AS m JOIN {table} AS t USING ({column}) JOIN bots b ON b.id = m.bot_id"
            " WHERE b.is_master AND t.bot_id = %s"
        ).format(table=sql.Identifier(table), column=sql.Identifier(column))
        alone += [f"no {table}.{column}" for (rows,) in connection.execute(query, [tenant]) if not rows]
    return _none_of("two tenants share telegram_id, code and name", alone, "all three")


def _check_deletion(connection: Connection, tenant: int) -> Check:
    """Delete the tenant, look, and roll back: it is there again afterwards."""
    (master,) = _column(connection, "SELECT id FROM bots WHERE is_master")
    left: list[str] = []

    with connection.transaction(force_rollback=True):
        before, rows = count_rows(connection, master), sum(count_rows(connection, tenant).values())
        left += [f"{n} rows of {table}" for table, n in delete_tenant(connection, tenant).items() if n]
        if count_rows(connection, master) != before:
            left.append("rows of the master bot went too")
        if not rows:
            left.append("there was nothing to delete")
    return _none_of(
        "DELETE FROM bots removes the tenant from every table",
        left,
        "nothing left, the master's rows untouched",
    )
