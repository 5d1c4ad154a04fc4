"""A second tenant is complete, is refused while tenants cannot share, and goes without a trace."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from online_migrate.demo.checks import NEW_TABLES
from online_migrate.demo.owned_tables import read_owned_tables
from online_migrate.demo.shop import BRIEF_TABLES, FURTHER_TABLES
from online_migrate.demo.tenant import (
    SHARED,
    count_rows,
    create_tenant,
    delete_tenant,
    find_gaps,
)
from tests.demo import by_hand


def test_tenant_has_a_row_everywhere(shop: str) -> None:
    """A second tenant has a row in every table of the set, also the empty one, and
    along every foreign key.
    """
    with psycopg.connect(shop, autocommit=True) as connection:
        by_hand.add_bots(connection)
        by_hand.swap(connection)
        tenant = create_tenant(connection)
        owned = read_owned_tables(connection)
        assert set(BRIEF_TABLES + FURTHER_TABLES) | set(NEW_TABLES) - {"bots"} == set(owned)
        assert count_rows(connection, tenant) == dict.fromkeys(owned, 1)
        assert find_gaps(connection, tenant) == []


def test_tenant_shares_what_tenants_may_share(shop: str) -> None:
    """The tenant's telegram_id, code and name are the master's, and what is unique for all stays so."""
    with psycopg.connect(shop, autocommit=True) as connection:
        by_hand.add_bots(connection)
        by_hand.swap(connection)
        tenants = [create_tenant(connection, bot=n) for n in (2, 3)]
        for table, column in SHARED.items():
            query = sql.SQL(
                "SELECT count(DISTINCT bot_id) FROM {table} WHERE {column} ="
                " (SELECT {column} FROM {table} WHERE bot_id = %s)"
            ).format(table=sql.Identifier(table), column=sql.Identifier(column))
            assert connection.execute(query, [tenants[0]]).fetchone() == (3,), table


def test_tenant_is_refused_while_a_global_unique_stands(shop: str) -> None:
    """Before the swap tenants cannot share values: the unique refuses, and nothing of the tenant remains."""
    with psycopg.connect(shop, autocommit=True) as connection:
        by_hand.add_bots(connection)
        with pytest.raises(psycopg.errors.UniqueViolation):
            create_tenant(connection)
        assert connection.execute("SELECT count(*) FROM bots").fetchone() == (1,)


def test_deleting_a_tenant_leaves_nothing_of_it(shop: str) -> None:
    """DELETE FROM bots removes the tenant's row from every table, and none of the master's."""
    with psycopg.connect(shop, autocommit=True) as connection:
        master = by_hand.add_bots(connection)
        by_hand.swap(connection)
        before = count_rows(connection, master)
        tenant = create_tenant(connection)
        delete_tenant(connection, tenant)
        assert set(count_rows(connection, tenant).values()) == {0}
        assert count_rows(connection, master) == before


def test_gaps_are_found(shop: str) -> None:
    """A table without a row of the tenant, and a reference that is NULL, are named."""
    with psycopg.connect(shop, autocommit=True) as connection:
        by_hand.add_bots(connection)
        by_hand.swap(connection)
        tenant = create_tenant(connection)
        connection.execute("DELETE FROM poll_answers WHERE bot_id = %s", [tenant])
        connection.execute("UPDATE users SET referred_by_id = NULL WHERE bot_id = %s", [tenant])
        gaps = find_gaps(connection, tenant)
        assert "no row in poll_answers" in gaps
        assert "no row of users along users_referred_by_id_fkey" in gaps
