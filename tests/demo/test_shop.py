"""The legacy shop holds every trap that a plan must survive, and the same rows on every server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from online_migrate.demo.shop import (
    BRIEF_TABLES,
    FEWEST_USERS,
    FURTHER_TABLES,
    OUTSIDE_TABLES,
    SHOP_TABLES,
    create_shop,
)
from tests.servers import TestServer

INT4_MAX = 2**31 - 1

REACHING = """
    WITH RECURSIVE reaching (oid, joins) AS (
        SELECT {root}::regclass::oid, 0
        UNION
        SELECT conrelid, joins + 1
        FROM pg_constraint JOIN reaching ON confrelid = reaching.oid AND conrelid <> confrelid
        WHERE contype = 'f' AND joins < 9
    )
    SELECT relname::text, min(joins) FROM reaching JOIN pg_class USING (oid) GROUP BY relname
"""

# Every unique of a table, with its key columns: the constraint's name, or NULL where it is a bare index.
UNIQUES = """
    SELECT i.relname::text, c.conname::text, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
    LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid AND c.contype = 'u'
    WHERE x.indrelid = %s::regclass AND x.indisunique AND NOT x.indisprimary
    GROUP BY i.relname, c.conname
    ORDER BY i.relname
"""

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def connection(
    server: TestServer, new_database: Callable[[str | None], str], shop_template: str
) -> Iterator[Connection]:
    """A connection to one filled shop, for tests that only read."""
    name = new_database(shop_template)
    with psycopg.connect(server.dsn_for(name), autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = on")
        yield connection
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(name)))


def rows(connection: Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), values or None).fetchall()


def one(connection: Connection, query: str, *values: object) -> Any:
    return rows(connection, query, *values)[0][0]


def tables_reaching(connection: Connection, root: str) -> dict[str, int]:
    query = sql.SQL(REACHING).format(root=sql.Literal(root))
    return dict(connection.execute(query).fetchall())


def uniques(connection: Connection, table: str) -> list[tuple[str, str | None, list[str]]]:
    return [(index, constraint, columns) for index, constraint, columns in rows(connection, UNIQUES, table)]


def count_rows(connection: Connection) -> dict[str, int]:
    return {
        table: connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        ).fetchall()[0][0]
        for table in SHOP_TABLES
    }


def digest_rows(dsn: str) -> dict[str, str]:
    """The MD5 over the text of all rows of each table, as COPY writes them, in an order of no collation."""
    digests = {}
    with psycopg.connect(dsn) as connection:
        for table in SHOP_TABLES:
            query = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))
            with connection.cursor().copy(query) as copy:
                lines = sorted(b"".join(copy).splitlines())
            digests[table] = hashlib.md5(b"\n".join(lines)).hexdigest()
    return digests


def refill(dsn: str, *, users: int, seed: int) -> dict[str, str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS public CASCADE")
        connection.execute("CREATE SCHEMA public")
    create_shop(dsn, users=users, seed=seed)
    return digest_rows(dsn)


# The tables


def test_the_lists_name_every_table_once(connection: Connection) -> None:
    """SHOP_TABLES is the whole shop: the brief's 30 tables, seven further ones, eleven outside."""
    there = {
        name for (name,) in rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    }
    assert sorted(there) == sorted(SHOP_TABLES)
    assert (len(BRIEF_TABLES), len(FURTHER_TABLES), len(OUTSIDE_TABLES)) == (30, 7, 11)


def test_seven_tables_reach_users_that_the_brief_does_not_name(connection: Connection) -> None:
    """A plan that trusts the brief's list misses exactly these, one, two and three joins away."""
    reaching = tables_reaching(connection, "users")
    further = {table: joins for table, joins in reaching.items() if table not in BRIEF_TABLES}
    assert further == {
        "user_promo_groups": 1,
        "referral_withdrawals": 1,
        "subscription_servers": 2,
        "ticket_messages": 2,
        "poll_answers": 2,
        "yookassa_refunds": 2,
        "ticket_attachments": 3,
    }
    assert set(further) == set(FURTHER_TABLES)


def test_two_tables_of_the_brief_do_not_reach_users(connection: Connection) -> None:
    """The set does not follow from foreign keys alone: two of its tables must be named."""
    reaching = tables_reaching(connection, "users")
    assert set(BRIEF_TABLES) - set(reaching) == {"promo_groups", "main_menu_buttons"}


def test_one_table_hangs_on_promo_groups_and_not_on_users(connection: Connection) -> None:
    """One table outside references the set, so that check asks about it; no other table does."""
    owned = {*BRIEF_TABLES, *FURTHER_TABLES}
    leaning = {
        child
        for child, parent in rows(
            connection,
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype ="
            " 'f'",
        )
        if parent in owned and child not in owned
    }
    assert leaning == {"server_squad_promo_groups"}
    assert "server_squad_promo_groups" not in tables_reaching(connection, "users")


# The traps


@pytest.mark.parametrize(
    ("table", "index", "column"),
    [
        ("users", "ix_users_telegram_id", "telegram_id"),
        ("promocodes", "ix_promocodes_code", "code"),
        ("advertising_campaigns", "ix_advertising_campaigns_start_parameter", "start_parameter"),
        ("yookassa_payments", "ix_yookassa_payments_yookassa_payment_id", "yookassa_payment_id"),
    ],
)
def test_uniques_that_are_no_constraints(connection: Connection, table: str, index: str, column: str) -> None:
    """DROP CONSTRAINT IF EXISTS finds nothing here, says so in a notice, and the column stays unique."""
    found = [
        (name, constraint) for name, constraint, columns in uniques(connection, table) if columns == [column]
    ]
    assert found == [(index, None)]


def test_a_name_that_is_unique_twice(connection: Connection) -> None:
    """Dropping the one constraint that the brief names leaves promo_groups(name) as unique as before."""
    assert uniques(connection, "promo_groups") == [
        ("promo_groups_name_key", "promo_groups_name_key", ["name"]),
        ("uq_promo_groups_name", "uq_promo_groups_name", ["name"]),
    ]


def test_one_subscription_for_each_user(connection: Connection) -> None:
    """A unique that follows the user is right in a shop of many tenants too: it must
    survive the migration.
    """
    assert ("subscriptions_user_id_key", "subscriptions_user_id_key", ["user_id"]) in uniques(
        connection, "subscriptions"
    )


def test_telegram_ids_above_int4(connection: Connection) -> None:
    """Code that binds a Telegram id as a 32-bit integer fails on most users, but not on all."""
    above, below = rows(
        connection,
        f"SELECT count(*) FILTER (WHERE telegram_id > {INT4_MAX}), count(*) FILTER (WHERE telegram_id <="
        f" {INT4_MAX})"
        " FROM users",
    )[0]
    assert above > below > 0


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("users", "referral_code"),
        ("mulenpay_payments", "mulen_payment_id"),
        ("wata_payments", "order_id"),
    ],
)
def test_nulls_in_a_nullable_unique(connection: Connection, table: str, column: str) -> None:
    """Uniques with NULLs do not prevent duplicates; each has several NULLs, and values too."""
    assert any(columns == [column] for _, _, columns in uniques(connection, table))
    nulls, values = rows(connection, f"SELECT count(*) - count({column}), count({column}) FROM {table}")[0]
    assert nulls > 1
    assert values > 1


def test_keys_have_holes(connection: Connection) -> None:
    """No range of keys is full: as many keys as rows is a guess that fails."""
    count, highest = rows(connection, "SELECT count(*), max(id) FROM transactions")[0]
    assert highest > count


def test_sequences_go_on_after_the_rows(shop: str) -> None:
    """The application's next INSERT does not conflict with an existing key, in any table."""
    keyless = {"user_promo_groups", "subscription_servers", "server_squad_promo_groups"}
    with psycopg.connect(shop) as connection:
        for table in set(SHOP_TABLES) - keyless:
            following = one(connection, "SELECT nextval(pg_get_serial_sequence(%s, 'id'))", table)
            assert following == one(connection, f"SELECT COALESCE(max(id), 0) + 1 FROM {table}"), table


def test_composite_keys_without_an_id(connection: Connection) -> None:
    """A backfill that walks `id` cannot walk these two tables of the set."""
    without = rows(
        connection,
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'id') ORDER"
        " BY 1",
    )
    assert [name for (name,) in without] == [
        "server_squad_promo_groups",
        "subscription_servers",
        "user_promo_groups",
    ]


def test_json_columns_have_no_equality(connection: Connection) -> None:
    """Columns are json, not jsonb, so comparing whole rows with = fails; each of them holds values."""
    columns = rows(
        connection,
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type LIKE 'json%'",
    )
    assert {kind for _, _, kind in columns} == {"json"}
    assert len(columns) >= 10
    with pytest.raises(psycopg.errors.UndefinedFunction):
        rows(connection, "SELECT count(*) FROM yookassa_payments WHERE metadata_json = metadata_json")


def test_only_sequences_are_defaults(connection: Connection) -> None:
    """The application supplies every value, as an ORM does: a statement that leaves one out fails."""
    defaults = rows(
        connection,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_default IS NOT NULL AND NOT (column_name = 'id' AND column_default LIKE 'nextval(%')",
    )
    assert defaults == []


def test_keys_are_int4(connection: Connection) -> None:
    """Every id is an integer from a sequence of its own table, as SERIAL makes it."""
    kinds = rows(
        connection,
        "SELECT DISTINCT data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'id'",
    )
    assert kinds == [("integer",)]


def test_a_wide_table(connection: Connection) -> None:
    """RowSet rows of support_audit_logs fit a page, so a backfill must take fewer stripes there."""
    width = one(connection, "SELECT avg(pg_column_size(t.*))::integer FROM support_audit_logs AS t")
    assert 850 <= width <= 950


def test_a_foreign_key_that_is_there_twice(connection: Connection) -> None:
    """A list of foreign keys by their columns contains the same one twice, under two names."""
    twice = rows(
        connection,
        "SELECT conrelid::regclass::text, conkey, confrelid::regclass::text, count(*), bool_and(confdeltype"
        " = 'c')"
        " FROM pg_constraint WHERE contype = 'f' GROUP BY 1, 2, 3 HAVING count(*) > 1",
    )
    assert twice == [("subscription_events", [2], "users", 2, True)]


def test_a_reference_that_is_no_foreign_key(connection: Connection) -> None:
    """What leads to users by its name and its values only is not found by foreign
    keys, though it is right.
    """
    assert (
        one(connection, "SELECT count(*) FROM ticket_messages WHERE user_id NOT IN (SELECT id FROM users)")
        == 0
    )
    assert "ticket_messages" in tables_reaching(connection, "tickets")
    keys = rows(
        connection,
        "SELECT confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid = 'ticket_messages'::regclass",
    )
    assert keys == [("tickets",)]


def test_foreign_keys_are_indexed_and_never_restrict(connection: Connection) -> None:
    """A tenant's rows go by cascade: no key forbids it, and none looks its children
    up by scanning a table.
    """
    keys = rows(
        connection,
        "SELECT conname::text, confdeltype::text, EXISTS (SELECT FROM pg_index WHERE indrelid = conrelid"
        " AND indkey[0] = conkey[1]) FROM pg_constraint WHERE contype = 'f' AND connamespace ="
        " 'public'::regnamespace",
    )
    assert {action for _, action, _ in keys} == {"a", "c", "n"}  # NO ACTION, CASCADE, SET NULL
    assert [name for name, _, indexed in keys if not indexed] == []


def test_nothing_leans_on_the_uniques_that_must_go(connection: Connection) -> None:
    """All foreign keys reference primary keys: a test adds the one on users(telegram_id)."""
    leaning = rows(
        connection,
        "SELECT conname FROM pg_constraint JOIN pg_index ON indexrelid = conindid"
        " WHERE contype = 'f' AND NOT indisprimary",
    )
    assert leaning == []


def test_users_refer_to_users(connection: Connection) -> None:
    """A table whose foreign key leads to itself is in the set, and both ends of it are of one tenant."""
    assert one(connection, "SELECT count(*) FROM users WHERE referred_by_id IS NOT NULL") > 0
    assert one(connection, "SELECT count(*) FROM users WHERE referred_by_id >= id") == 0


# The rows


def test_every_table_but_one_has_rows(connection: Connection) -> None:
    """Steps are tried on filled tables, on a table of one row, and on an empty one."""
    counts = count_rows(connection)
    assert [table for table, count in counts.items() if count == 0] == ["main_menu_buttons"]
    assert counts["welcome_texts"] == 1


def test_every_table_but_one_has_rows_in_the_smallest_shop(database: str) -> None:
    """A fast test may take a small shop and still meet every table filled."""
    create_shop(database, users=FEWEST_USERS)
    with psycopg.connect(database) as connection:
        counts = count_rows(connection)
    assert [table for table, count in counts.items() if count == 0] == ["main_menu_buttons"]


def test_the_number_of_rows_follows_the_number_of_users(database: str) -> None:
    """One parameter sizes the shop: some twenty rows for each user, and as many users as asked for."""
    create_shop(database, users=1_000)
    with psycopg.connect(database) as connection:
        counts = count_rows(connection)
    assert counts["users"] == 1_000
    assert 19_000 <= sum(counts.values()) <= 22_000


def test_the_same_seed_gives_the_same_rows(database: str) -> None:
    """A finding can be reproduced on another machine: same users and seed, same bytes in every table."""
    first = refill(database, users=60, seed=1)
    assert refill(database, users=60, seed=1) == first


def test_the_rows_are_the_same_on_every_version(database: str) -> None:
    """The golden digest of a shop of 60 users, taken on PostgreSQL 15, holds on every version and locale."""
    digests = refill(database, users=60, seed=1)
    whole = hashlib.md5("".join(digests[table] for table in SHOP_TABLES).encode()).hexdigest()
    assert whole == "38a1b12c50cb1e35169b1b1cc2344af9"


def test_another_seed_gives_other_rows(database: str) -> None:
    """The seed matters: users, their balances and their promo codes differ."""
    first = refill(database, users=60, seed=1)
    second = refill(database, users=60, seed=2)
    changed = {table for table in SHOP_TABLES if first[table] != second[table]}
    assert changed >= {"users", "transactions", "promocodes", "subscriptions", "support_audit_logs"}


def test_balances_are_what_the_transactions_say(connection: Connection) -> None:
    """No money is missing in the shop, so a check after a migration has a correct sum to compare with."""
    wrong = rows(
        connection,
        "SELECT u.id FROM users u LEFT JOIN (SELECT user_id, sum(CASE type WHEN 'deposit' THEN amount_kopeks"
        " ELSE -amount_kopeks END) AS total FROM transactions WHERE is_completed GROUP BY user_id) t"
        " ON t.user_id = u.id WHERE u.balance_kopeks <> COALESCE(t.total, 0) OR u.balance_kopeks < 0",
    )
    assert wrong == []


def test_promo_codes_count_their_uses(connection: Connection) -> None:
    """current_uses is the number of promocode_uses, as the application keeps it."""
    wrong = rows(
        connection,
        "SELECT id FROM promocodes p WHERE current_uses <>"
        " (SELECT count(*) FROM promocode_uses WHERE promocode_id = p.id)",
    )
    assert wrong == []


@pytest.mark.parametrize(
    ("child", "column", "parent"),
    [
        ("sent_notifications", "subscription_id", "subscriptions"),
        ("subscription_events", "subscription_id", "subscriptions"),
        ("subscription_events", "transaction_id", "transactions"),
        ("discount_offers", "subscription_id", "subscriptions"),
        ("promo_offer_logs", "offer_id", "discount_offers"),
        ("yookassa_payments", "transaction_id", "transactions"),
        ("cryptobot_payments", "transaction_id", "transactions"),
    ],
)
def test_a_row_and_its_parent_are_of_one_user(
    connection: Connection, child: str, column: str, parent: str
) -> None:
    """Two ways to a row's owner lead to the same user, or a check of owners would cry wolf."""
    wrong = one(
        connection,
        f"SELECT count(*) FROM {child} c JOIN {parent} p ON p.id = c.{column} WHERE p.user_id <> c.user_id",
    )
    assert wrong == 0


def test_it_is_analysed(connection: Connection) -> None:
    """Planners and readers of statistics know the tables at once; only the empty one says 0."""
    without = rows(
        connection,
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        " AND reltuples <= 0",
    )
    assert without == [("main_menu_buttons",)]


def test_nothing_is_left_behind(connection: Connection) -> None:
    """The functions that fill the shop were dropped: the database contains the shop and nothing else."""
    schemas = rows(connection, "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' ORDER BY 1")
    assert schemas == [("information_schema",), ("public",)]
    assert one(connection, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace") == 0


# What it refuses


@pytest.mark.parametrize(("users", "seed"), [(FEWEST_USERS - 1, 1), (FEWEST_USERS, -1)])
def test_a_shop_that_cannot_be_filled_is_refused(users: int, seed: int) -> None:
    """Too few users, or a seed that is no seed, is said before anything is connected to."""
    with pytest.raises(ValueError, match="a shop"):
        create_shop("host=nowhere.invalid", users=users, seed=seed)


def test_a_second_shop_in_one_database_is_refused(shop: str) -> None:
    """An existing shop is not changed: the error is raised before any row is written."""
    before = digest_rows(shop)
    with pytest.raises(psycopg.errors.DuplicateTable):
        create_shop(shop, users=50)
    assert digest_rows(shop) == before
