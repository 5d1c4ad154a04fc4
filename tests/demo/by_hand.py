"""The end of the multi-tenant plan on the shop, reached by plain SQL: for tests of the demo."""

from __future__ import annotations

import psycopg
from psycopg import sql

from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES

BOTS = """
    CREATE TABLE bots (
        id SERIAL PRIMARY KEY, name VARCHAR(255) NOT NULL, telegram_bot_token VARCHAR(255) UNIQUE NOT NULL,
        api_token VARCHAR(255) UNIQUE NOT NULL, api_token_hash VARCHAR(128) NOT NULL,
        is_master BOOLEAN DEFAULT FALSE NOT NULL, created_by INTEGER REFERENCES users (id) ON DELETE SET NULL);
    CREATE TABLE bot_feature_flags (
        bot_id INTEGER NOT NULL REFERENCES bots (id) ON DELETE CASCADE, feature_key VARCHAR(100) NOT NULL,
        enabled BOOLEAN DEFAULT FALSE NOT NULL, config JSONB DEFAULT '{}', PRIMARY KEY (bot_id, feature_key));
    INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash, is_master)
    VALUES ('master', 'made-up', 'sha256:' || repeat('0', 12), repeat('0', 64), true)"""

SWAP = """
    CREATE UNIQUE INDEX CONCURRENTLY idx_users_telegram_bot ON users (telegram_id, bot_id);
    CREATE UNIQUE INDEX CONCURRENTLY idx_promocodes_bot_code ON promocodes (bot_id, code);
    CREATE UNIQUE INDEX CONCURRENTLY idx_promo_groups_bot_name ON promo_groups (bot_id, name);
    DROP INDEX ix_users_telegram_id;
    DROP INDEX ix_promocodes_code;
    ALTER TABLE promo_groups DROP CONSTRAINT promo_groups_name_key, DROP CONSTRAINT uq_promo_groups_name"""


def add_bots(connection: psycopg.Connection) -> int:
    """Everything but the swap: bots, bot_id on every table of the set with its key and index; the master's id."""
    connection.execute(BOTS)
    for table in BRIEF_TABLES + FURTHER_TABLES:
        query = sql.SQL(
            "ALTER TABLE {table} ADD COLUMN bot_id INTEGER NOT NULL DEFAULT 1 REFERENCES bots (id) ON DELETE CASCADE;"
            "CREATE INDEX {index} ON {table} (bot_id)"
        )
        index = sql.Identifier(f"idx_{table}_bot_id")
        connection.execute(query.format(table=sql.Identifier(table), index=index))
    return 1


def swap(connection: psycopg.Connection) -> None:
    """The uniques are a bot's, and a forgotten bot_id is an error.  One statement at a time: two strong locks deadlock."""
    for statement in SWAP.split(";"):
        connection.execute(statement)
    for table in BRIEF_TABLES + FURTHER_TABLES:
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN bot_id DROP DEFAULT").format(sql.Identifier(table))
        )
