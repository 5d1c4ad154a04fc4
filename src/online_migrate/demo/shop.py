"""The legacy shop: a single-tenant database with the difficulties of real ones, for
the demo and for tests.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

import psycopg
from psycopg import sql

#: The existing tables that the brief names, in the order of its plan.
BRIEF_TABLES: Final[tuple[str, ...]] = (
    "users",
    "subscriptions",
    "transactions",
    "tickets",
    "promocodes",
    "promo_groups",
    "yookassa_payments",
    "cryptobot_payments",
    "heleket_payments",
    "mulenpay_payments",
    "pal24_payments",
    "wata_payments",
    "platega_payments",
    "referral_earnings",
    "subscription_conversions",
    "promocode_uses",
    "discount_offers",
    "promo_offer_templates",
    "subscription_temporary_access",
    "promo_offer_logs",
    "sent_notifications",
    "subscription_events",
    "poll_responses",
    "advertising_campaigns",
    "advertising_campaign_registrations",
    "broadcast_history",
    "support_audit_logs",
    "user_messages",
    "welcome_texts",
    "main_menu_buttons",
)

#: Tables that reach users by foreign keys although the brief does not name them.
FURTHER_TABLES: Final[tuple[str, ...]] = (
    "user_promo_groups",
    "subscription_servers",
    "ticket_messages",
    "ticket_attachments",
    "poll_answers",
    "referral_withdrawals",
    "yookassa_refunds",
)

#: Tables that are not named and do not reach users: they stay unchanged. The first references promo_groups.
OUTSIDE_TABLES: Final[tuple[str, ...]] = (
    "server_squad_promo_groups",
    "server_squads",
    "polls",
    "poll_questions",
    "poll_options",
    "system_settings",
    "service_rules",
    "faq_pages",
    "privacy_policies",
    "public_offers",
    "web_api_tokens",
)

#: Every table of the shop.
SHOP_TABLES: Final[tuple[str, ...]] = BRIEF_TABLES + FURTHER_TABLES + OUTSIDE_TABLES

#: With fewer, some payment provider would have no payment; every promise about the rows holds from this
#: number on.
FEWEST_USERS: Final = 20

_PART_TWO: Final = b"-- Part 2:"


def create_shop(dsn: str, *, users: int, seed: int = 1) -> None:
    """Create the legacy shop in schema public of an empty database and fill it, about 20 rows for each user.

    The same users and seed give the same rows, byte for byte, on every supported version of PostgreSQL.
    Schema and rows are created in one transaction, so a failure leaves the database unchanged; ANALYZE runs
    at the end.

    Raises ValueError for fewer than 20 users, or a negative seed, and psycopg.errors.DuplicateTable if a shop
    already exists.
    """
    if users < FEWEST_USERS:
        raise ValueError(
            f"a shop needs at least {FEWEST_USERS} users to have rows in its tables, not {users}"
        )
    if seed < 0:
        raise ValueError(f"the seed of a shop is 0 or more, not {seed}")
    tables, part_two, constraints = _read_sql("legacy_shop.sql").partition(_PART_TWO)
    with psycopg.connect(dsn, autocommit=True) as connection:
        with connection.transaction():
            _prepare_session(connection, users=users, seed=seed)
            connection.execute(tables)
            connection.execute(_read_sql("legacy_shop_rows.sql"))
            connection.execute(part_two + constraints)
        names = sql.SQL(", ").join(sql.Identifier("public", table) for table in SHOP_TABLES)
        connection.execute(sql.SQL("ANALYZE {}").format(names))


def _prepare_session(connection: psycopg.Connection, *, users: int, seed: int) -> None:
    """Set the parameters of the SQL files and the settings that they need, for this transaction only."""
    settings = {
        "shop.users": str(users),
        "shop.seed": str(seed),
        "search_path": "public",
        "jit": "off",  # would compile queries that run once, over tables without statistics
        "maintenance_work_mem": "128MB",
    }
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _read_sql(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
