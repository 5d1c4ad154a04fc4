"""The end of the multi-tenant plan on the shop, reached by plain SQL: for tests of the demo."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES

NEW_TABLES = Path(__file__).parents[2] / "plans" / "multi_tenant.sql"

MASTER = """
    INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash, is_master)
    SELECT 'master', 'made-up', 'sha256:' || left(digest, 12), digest, true
      FROM (SELECT encode(sha256('token'), 'hex')) AS made (digest)"""

SWAP = """
    CREATE UNIQUE INDEX CONCURRENTLY idx_users_telegram_bot ON users (telegram_id, bot_id);
    CREATE UNIQUE INDEX CONCURRENTLY idx_promocodes_bot_code ON promocodes (bot_id, code);
    CREATE UNIQUE INDEX CONCURRENTLY idx_promo_groups_bot_name ON promo_groups (bot_id, name);
    DROP INDEX ix_users_telegram_id;
    DROP INDEX ix_promocodes_code;
    ALTER TABLE promo_groups DROP CONSTRAINT promo_groups_name_key, DROP CONSTRAINT uq_promo_groups_name"""


def add_bots(connection: psycopg.Connection) -> int:
    """Everything but the swap: bots, bot_id on every table of the set with its key and index; the master's
    id.
    """
    connection.execute(NEW_TABLES.read_bytes())
    connection.execute(MASTER)
    for table in BRIEF_TABLES + FURTHER_TABLES:
        query = sql.SQL(
            "ALTER TABLE {table} ADD COLUMN bot_id INTEGER NOT NULL DEFAULT 1 REFERENCES bots (id) ON DELETE"
            " CASCADE;"
            "CREATE INDEX {index} ON {table} (bot_id)"
        )
        index = sql.Identifier(f"idx_{table}_bot_id")
        connection.execute(query.format(table=sql.Identifier(table), index=index))
    return 1


def swap(connection: psycopg.Connection) -> None:
    """The uniques are a bot's, and a forgotten bot_id is an error.  One statement at a time: two strong locks
    deadlock.
    """
    for statement in SWAP.split(";"):
        connection.execute(statement)
    for table in BRIEF_TABLES + FURTHER_TABLES:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN bot_id DROP DEFAULT").format(sql.Identifier(table))
        )
