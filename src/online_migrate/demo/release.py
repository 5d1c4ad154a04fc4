"""The SQL of the shop's application: its old release, which knows no bots, and its new one.

Columns are named, as an ORM writes them.  A transaction is of one kind, does what one action of a customer
causes, and expects what the application expects: a telegram_id, a code or a name that is looked up has
exactly one row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

Row = tuple[Any, ...]
Values = Mapping[str, object]

NEW_CUSTOMERS_FROM: Final = 9_000_000_000  # the shop's own telegram ids end below 2^33 + 100,000
_CUSTOMERS: Final = 5_000  # whom the traffic picks from


class UnexpectedRows(Exception):  # the application's error, not one of the tool's
    """A look-up did not give exactly one row: what an application would crash on, or worse, not notice."""


@dataclass(slots=True)
class Bot:
    """One bot as the application knows it; ``bot_id`` is None in the old release.  Shared by all threads."""

    bot_id: int | None
    customers: list[int]
    """telegram ids"""
    codes: list[str]
    groups: list[str]
    newcomers: Iterator[int]
    """telegram ids that no customer has yet; one for all bots and releases"""
    guests: list[int] = field(default_factory=list)
    """customers of another bot who will register here next, under the same telegram id"""

    @classmethod
    def read(cls, connection: psycopg.Connection, bot_id: int | None, newcomers: Iterator[int]) -> Bot:
        """What the bot has at the start."""
        scope = sql.SQL("true") if bot_id is None else sql.SQL("bot_id = {}").format(sql.Literal(bot_id))

        def column(name: str, table: str) -> list[Any]:
            query = sql.SQL("SELECT {name} FROM {table} WHERE {scope} ORDER BY id LIMIT {limit}").format(
                name=sql.Identifier(name), table=sql.Identifier(table), scope=scope, limit=_CUSTOMERS
            )
            return [row[0] for row in connection.execute(query)]

        return cls(
            bot_id=bot_id,
            customers=column("telegram_id", "users"),
            codes=column("code", "promocodes"),
            groups=column("name", "promo_groups"),
            newcomers=newcomers,
        )

    def next_customer(self) -> int:
        """A telegram id of a person who is not a customer yet."""
        try:
            return self.guests.pop()
        except IndexError:
            return next(self.newcomers)


@functools.cache
def _insert(table: str, columns: tuple[str, ...]) -> sql.Composed:
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.Placeholder, columns)),
    )


@dataclass(slots=True)
class Customer:
    """One transaction's view: a connection in a transaction, a bot, and dice."""

    connection: psycopg.Connection
    bot: Bot
    dice: Random
    registered: int | None = None
    """the telegram id that is a customer's once the transaction has committed"""

    def now(self) -> datetime:
        """The application's clock: UTC, naive, as its columns are."""
        return datetime.now(UTC).replace(tzinfo=None)

    def insert(self, table: str, **values: object) -> int:
        """Insert a row with its columns named, the bot among them in the new release; its id."""
        if self.bot.bot_id is not None:
            values["bot_id"] = self.bot.bot_id
        row = self.connection.execute(_insert(table, tuple(values)), values).fetchone()
        assert row is not None
        return int(row[0])

    def execute(self, query: LiteralString, **values: object) -> list[Row]:
        """Run a statement; ``/*bot*/`` in it becomes the condition that keeps the
        new release within its bot.
        """
        scope: LiteralString = "" if self.bot.bot_id is None else "AND bot_id = %(bot_id)s"
        if self.bot.bot_id is not None:
            values["bot_id"] = self.bot.bot_id
        cursor = self.connection.execute(query.replace("/*bot*/", scope), values)
        return cursor.fetchall() if cursor.description else []

    def one(self, query: LiteralString, **values: object) -> Row:
        """The one row that must exist.  Raises :class:`UnexpectedRows`."""
        rows = self.execute(query, **values)
        if len(rows) != 1:
            raise UnexpectedRows(f"{len(rows)} rows where the application expects one: {query}")
        return rows[0]

    def random_customer(self) -> int:
        """The users.id of a random customer, looked up by telegram id."""
        telegram_id = self.dice.choice(self.bot.customers)
        row = self.one(
            "SELECT id, telegram_id, username, status, balance_kopeks, promo_group_id FROM users"
            " WHERE telegram_id = %(telegram_id)s /*bot*/",
            telegram_id=telegram_id,
        )
        return int(row[0])


def look_up(app: Customer) -> None:
    """Who is it, and until when may he use the service?"""
    user_id = app.random_customer()
    app.execute(
        "SELECT id, status, end_date, traffic_used_gb FROM subscriptions WHERE user_id = %(user_id)s /*bot*/",
        user_id=user_id,
    )


def top_up(app: Customer) -> None:
    """A payment arrives: payment, transaction, balance."""
    user_id, now, amount = app.random_customer(), app.now(), app.dice.randrange(10_000, 90_000, 100)
    payment_id = app.insert(
        "yookassa_payments", user_id=user_id, yookassa_payment_id=f"{app.dice.getrandbits(96):024x}",
        amount_kopeks=amount, currency="RUB", description="Top-up", status="pending", is_paid=False,
        is_captured=False, refundable=True, test_mode=False, created_at=now, updated_at=now,
    )  # fmt: skip
    transaction_id = app.insert(
        "transactions", user_id=user_id, type="deposit", amount_kopeks=amount,
        description="Top-up through yookassa", payment_method="yookassa", is_completed=True, created_at=now,
        completed_at=now,
    )  # fmt: skip
    app.execute(
        "UPDATE users SET balance_kopeks = balance_kopeks + %(amount)s, updated_at = %(now)s"
        " WHERE id = %(user_id)s /*bot*/",
        amount=amount, now=now, user_id=user_id,
    )  # fmt: skip
    app.execute(
        "UPDATE yookassa_payments SET status = 'succeeded', is_paid = true, transaction_id ="
        " %(transaction_id)s,"
        " updated_at = %(now)s WHERE id = %(payment_id)s /*bot*/",
        transaction_id=transaction_id, now=now, payment_id=payment_id,
    )  # fmt: skip


def renew(app: Customer) -> None:
    """A subscription is paid for from the balance."""
    user_id, now, price = app.random_customer(), app.now(), 9_900
    app.one("SELECT balance_kopeks FROM users WHERE id = %(user_id)s /*bot*/ FOR UPDATE", user_id=user_id)
    transaction_id = app.insert(
        "transactions", user_id=user_id, type="subscription_payment", amount_kopeks=price,
        description="Subscription for 30 days", is_completed=True, created_at=now, completed_at=now,
    )  # fmt: skip
    app.execute(
        "UPDATE users SET balance_kopeks = balance_kopeks - %(price)s, last_activity = %(now)s"
        " WHERE id = %(user_id)s /*bot*/",
        price=price, now=now, user_id=user_id,
    )  # fmt: skip
    app.execute(
        "UPDATE subscriptions SET status = 'active', end_date = %(until)s, updated_at = %(now)s"
        " WHERE user_id = %(user_id)s /*bot*/",
        until=now + timedelta(days=30), now=now, user_id=user_id,
    )  # fmt: skip
    app.insert(
        "subscription_events", user_id=user_id, transaction_id=transaction_id, event_type="renewal",
        amount_kopeks=price, currency="RUB", message="Renewed", occurred_at=now, created_at=now,
    )  # fmt: skip


def register(app: Customer) -> None:
    """A new customer with a trial; at a second bot a customer of the first one, with the same telegram id."""
    now, telegram_id = app.now(), app.bot.next_customer()
    group = app.one(
        "SELECT id FROM promo_groups WHERE name = %(name)s /*bot*/", name=app.dice.choice(app.bot.groups)
    )
    user_id = app.insert(
        "users", telegram_id=telegram_id, username=f"user_{telegram_id}", first_name="Анна", status="active",
        language="fa", balance_kopeks=0, used_promocodes=0, has_had_paid_subscription=False,
        promo_group_id=group[0], auto_promo_group_assigned=False, created_at=now, updated_at=now,
    )  # fmt: skip
    app.insert(
        "subscriptions", user_id=user_id, status="trial", is_trial=True, start_date=now,
        end_date=now + timedelta(days=3), traffic_limit_gb=10, traffic_used_gb=0.0, device_limit=1,
        autopay_enabled=False, autopay_days_before=3, created_at=now, updated_at=now,
    )  # fmt: skip
    app.registered = telegram_id


def redeem(app: Customer) -> None:
    """A promo code is looked up by its code and used, at most once a customer."""
    now = app.now()
    code = app.one(
        "SELECT id, current_uses, max_uses FROM promocodes WHERE code = %(code)s /*bot*/ FOR UPDATE",
        code=app.dice.choice(app.bot.codes),
    )
    used = {"promocode_id": code[0], "user_id": app.random_customer()}
    if app.execute(
        "SELECT id FROM promocode_uses WHERE promocode_id = %(promocode_id)s AND user_id = %(user_id)s"
        " /*bot*/",
        **used,
    ):
        return
    app.insert("promocode_uses", **used, used_at=now)
    app.execute(
        "UPDATE promocodes SET current_uses = current_uses + 1, updated_at = %(now)s WHERE id = %(id)s"
        " /*bot*/",
        now=now, id=code[0],
    )  # fmt: skip


def ask(app: Customer) -> None:
    """A ticket with a first message, and the state of an older one."""
    user_id, now = app.random_customer(), app.now()
    app.execute(
        "UPDATE tickets SET status = 'closed', closed_at = %(now)s WHERE user_id = %(user_id)s /*bot*/"
        " AND status = 'answered'",
        now=now, user_id=user_id,
    )  # fmt: skip
    ticket_id = app.insert(
        "tickets", user_id=user_id, title="It does not work", status="open", priority="normal",
        user_reply_block_permanent=False, created_at=now, updated_at=now,
    )  # fmt: skip
    app.insert(
        "ticket_messages", ticket_id=ticket_id, user_id=user_id, message_text="Please look",
        is_from_admin=False, has_media=False, created_at=now,
    )  # fmt: skip


def notify(app: Customer) -> None:
    """A reminder is sent, and an older one deleted."""
    user_id, now = app.random_customer(), app.now()
    for (subscription_id,) in app.execute(
        "SELECT id FROM subscriptions WHERE user_id = %(user_id)s /*bot*/", user_id=user_id
    ):
        app.execute(
            "DELETE FROM sent_notifications WHERE subscription_id = %(subscription_id)s /*bot*/"
            " AND notification_type = 'expired'",
            subscription_id=subscription_id,
        )
        app.insert(
            "sent_notifications", user_id=user_id, subscription_id=subscription_id,
            notification_type="expiring", days_before=3, created_at=now,
        )  # fmt: skip


def announce(app: Customer) -> None:
    """The staff writes a message for the main menu and withdraws it."""
    now = app.now()
    message_id = app.insert(
        "user_messages", message_text="A new server is online", is_active=True, sort_order=1, created_at=now,
        updated_at=now,
    )  # fmt: skip
    app.execute(
        "UPDATE user_messages SET is_active = false, updated_at = %(now)s WHERE id = %(id)s /*bot*/",
        now=now, id=message_id,
    )  # fmt: skip
    if app.dice.random() < 0.5:
        app.execute("DELETE FROM user_messages WHERE id = %(id)s /*bot*/", id=message_id)


KINDS: Final[Mapping[Callable[[Customer], None], int]] = {
    look_up: 30, top_up: 20, renew: 15, register: 10, redeem: 8, ask: 7, notify: 6, announce: 4,
}  # fmt: skip
"""Every kind of transaction with its weight."""
