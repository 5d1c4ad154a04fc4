"""Every operation on the filled shop: what exists before, what may exist half,
what conflicts with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from online_migrate.operations.contract.state import State
from tests.operations.site import plan_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A step to be driven through its contract, on tables that an application writes meanwhile."""

    operation: str
    plan: str
    of: str = ""
    """tells two cases of an operation apart"""
    table: str | None = None
    """where the step is over several tables: the one that is checked; those before it are made first"""
    before: str = ""
    """SQL that makes the shop what the steps above would have made of it"""
    ends_in: State = State.DONE
    """what state() says after it; a backfill and a mere look leave it to the journal"""
    partial: Mapping[str, tuple[State, str]] = field(default_factory=dict)
    """what a crash, or a hand, may have left half: its state, and the SQL that makes it"""
    conflict: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """what conflicts with it: the SQL that makes it, and words of the finding"""
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.operation} {self.of}".strip()


BOTS = "CREATE TABLE bots (id serial PRIMARY KEY); INSERT INTO bots DEFAULT VALUES;"
EMPTY_COLUMN = "ALTER TABLE transactions ADD COLUMN bot_id integer;"
FILLED_COLUMN = "ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 1;"
TWO_TENANTS = """
    ALTER TABLE users ADD COLUMN bot_id integer NOT NULL DEFAULT 1;
    CREATE UNIQUE INDEX idx_users_telegram_bot ON users (telegram_id, bot_id);
    ALTER TABLE promo_groups ADD COLUMN bot_id integer NOT NULL DEFAULT 1;
    CREATE UNIQUE INDEX idx_promo_groups_bot_name ON promo_groups (bot_id, name);"""
MASTER = (
    "{id: master, table: bots, where: {is_master: true}, values: {name: master,"
    " telegram_bot_token: <secret.telegram_token>, api_token: <secret.api_token.masked>,"
    " api_token_hash: <secret.api_token.sha256>}}"
)
SECRETS = "secrets: {telegram_token: {env: MASTER_BOT_TOKEN}, api_token: {generate: urlsafe, bytes: 32}}"
TOKEN = "4711:the-token-of-the-master-bot"
MASTER_PLAN = plan_of("create_tables: multi_tenant.sql", f"ensure_row: {MASTER}", head=SECRETS)
A_MASTER = """
    INSERT INTO bots (name, telegram_bot_token, api_token, api_token_hash, is_master)
    VALUES ('by hand', 'a', 'b', 'c', true);"""
INVALID = (
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_transactions_bot_id'::regclass::oid;"
)
UNIQUE_INDEX = "CREATE UNIQUE INDEX users_telegram_bot ON users (telegram_id, bot_id);"
NO_PRIMARY_KEY = "ALTER TABLE transactions DROP CONSTRAINT transactions_pkey CASCADE;"
OTHER_INDEX = "already exists with another definition"

CASES = (
    Case(
        operation="create_tables",
        of="bots",
        plan=plan_of("create_tables: multi_tenant.sql"),
        table="bots",
        conflict={
            "a table of that name": (
                "CREATE TABLE bots (id serial PRIMARY KEY, name text NOT NULL)",
                "missing: column name character varying(255) NOT NULL",
            ),
            "a view of that name": ("CREATE VIEW bots AS SELECT 1 AS id", "bots already exists"),
            "an index's name is taken": (
                "CREATE INDEX idx_bots_is_active ON users (status)",
                "idx_bots_is_active",
            ),
            "a sequence's name is taken": ("CREATE SEQUENCE bots_id_seq", "bots_id_seq"),
        },
    ),
    Case(
        operation="create_tables",
        of="with four parents",
        plan=plan_of("create_tables: multi_tenant.sql"),
        table="card_to_card_payments",
        conflict={
            "an index is missing": (
                """CREATE TABLE card_to_card_payments (
                    id SERIAL PRIMARY KEY, bot_id INTEGER NOT NULL REFERENCES bots(id) ON DELETE CASCADE,
                    user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
                    transaction_id INTEGER REFERENCES transactions(id) ON DELETE SET NULL,
                    card_id INTEGER REFERENCES tenant_payment_cards(id) ON DELETE SET NULL,
                    amount_kopeks INTEGER NOT NULL, tracking_number VARCHAR(50) UNIQUE NOT NULL,
                    receipt_type VARCHAR(20), receipt_text TEXT, receipt_image_file_id VARCHAR(255),
                    status VARCHAR(20) DEFAULT 'pending' NOT NULL,
                    admin_reviewed_by INTEGER REFERENCES users(id) ON DELETE SET NULL,
                    admin_reviewed_at TIMESTAMP, admin_notes TEXT,
                    created_at TIMESTAMP DEFAULT NOW() NOT NULL, updated_at TIMESTAMP DEFAULT NOW() NOT NULL);
                   CREATE INDEX idx_card_payments_bot_user ON card_to_card_payments(bot_id, user_id);
                   CREATE INDEX idx_card_payments_tracking ON card_to_card_payments(tracking_number);""",
                "missing: index CREATE INDEX idx_card_payments_status",
            ),
        },
    ),
    Case(
        operation="ensure_row",
        plan=MASTER_PLAN,
        environ={"MASTER_BOT_TOKEN": TOKEN},
        partial={"a row that the journal does not know": (State.PARTIAL, A_MASTER)},
        conflict={
            "two rows": (
                A_MASTER + A_MASTER.replace("'a', 'b'", "'d', 'e'"),
                "more than one row of bots is what <master> should stand for",
            )
        },
    ),
    Case(
        operation="add_column",
        plan=plan_of("add_column: {table: transactions, column: bot_id, type: integer, new_rows: 1}"),
        partial={"without its default": (State.PARTIAL, EMPTY_COLUMN)},
        conflict={
            "another type": (
                "ALTER TABLE transactions ADD COLUMN bot_id bigint",
                "transactions.bot_id already exists as bigint",
            ),
            "another default": (
                "ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 2",
                "transactions.bot_id already exists as integer, default 2",
            ),
        },
    ),
    Case(
        operation="add_column",
        of="without a default",
        plan=plan_of("add_column: {table: users, column: note, type: varchar(40)}"),
        conflict={
            "another length": ("ALTER TABLE users ADD COLUMN note varchar(20)", "character varying(20)"),
            "a default": ("ALTER TABLE users ADD COLUMN note varchar(40) DEFAULT 'x'", "default 'x'"),
        },
    ),
    Case(
        operation="add_column",
        of="with a value for old rows",
        plan=plan_of("add_column: {table: users, column: level, type: smallint, new_rows: 3, instant: true}"),
    ),
    Case(
        operation="backfill",
        plan=plan_of("backfill: {table: transactions, column: bot_id, value: 1}", stage="pace: {duty: 100%}"),
        before=EMPTY_COLUMN + "ALTER TABLE transactions ALTER bot_id SET DEFAULT 1",
        ends_in=State.PARTIAL,
    ),
    Case(
        operation="create_index",
        plan=plan_of("create_index: {table: transactions, name: idx_<table>_bot_id, columns: [bot_id]}"),
        before=FILLED_COLUMN,
        partial={
            "left invalid by a build that was killed": (
                State.PARTIAL,
                "CREATE INDEX idx_transactions_bot_id ON transactions (bot_id);" + INVALID,
            ),
        },
        conflict={
            "on another table": ("CREATE INDEX idx_transactions_bot_id ON users (status)", OTHER_INDEX),
            "on another column": (
                "CREATE INDEX idx_transactions_bot_id ON transactions (amount_kopeks)",
                OTHER_INDEX,
            ),
            "in another order": (
                "CREATE INDEX idx_transactions_bot_id ON transactions (bot_id DESC)",
                OTHER_INDEX,
            ),
            "on some rows only": (
                "CREATE INDEX idx_transactions_bot_id ON transactions (bot_id) WHERE is_completed",
                OTHER_INDEX,
            ),
            "a table of that name": ("CREATE TABLE idx_transactions_bot_id ()", "idx_transactions_bot_id"),
        },
    ),
    Case(
        operation="create_index",
        of="unique",
        plan=plan_of(
            "create_index: {table: users, name: idx_users_telegram_bot, columns: [telegram_id, bot_id],"
            " unique: true}"
        ),
        before="ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;",
        conflict={
            "not unique": (
                "CREATE INDEX idx_users_telegram_bot ON users (telegram_id, bot_id)",
                OTHER_INDEX,
            ),
        },
    ),
    Case(
        operation="drop_index",
        plan=plan_of("drop_index: {table: transactions, name: idx_<table>_bot_id}"),
        before=FILLED_COLUMN + "CREATE INDEX idx_transactions_bot_id ON transactions (bot_id);",
        partial={
            "left invalid by a drop that was killed": (State.PARTIAL, INVALID),
            "left dead by a drop that was killed": (
                State.PARTIAL,
                INVALID.replace("SET", "SET indisready = false, indislive = false,"),
            ),
        },
        conflict={
            "of another table": (
                (
                    "DROP INDEX idx_transactions_bot_id;"
                    " CREATE INDEX idx_transactions_bot_id ON users (status)"
                ),
                "is no index of transactions: CREATE INDEX",
            ),
            "a table of that name": (
                "DROP INDEX idx_transactions_bot_id; CREATE TABLE idx_transactions_bot_id ()",
                "is no index of transactions",
            ),
        },
    ),
    Case(
        operation="add_unique",
        plan=plan_of("add_unique: {table: users, columns: [telegram_id, bot_id], name: users_telegram_bot}"),
        before="ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;",
        partial={
            "an index without its constraint": (State.PARTIAL, UNIQUE_INDEX),
            "left invalid by a build that was killed": (
                State.PARTIAL,
                UNIQUE_INDEX + INVALID.replace("idx_transactions_bot_id", "users_telegram_bot"),
            ),
        },
        conflict={
            "not unique": (UNIQUE_INDEX.replace("UNIQUE", ""), OTHER_INDEX),
            "on other columns": (
                "ALTER TABLE users ADD CONSTRAINT users_telegram_bot UNIQUE (bot_id, telegram_id)",
                "it has users_telegram_bot UNIQUE (bot_id, telegram_id)",
            ),
            "checked at commit only": (
                "ALTER TABLE users ADD CONSTRAINT users_telegram_bot UNIQUE (telegram_id, bot_id) DEFERRABLE",
                "UNIQUE (telegram_id, bot_id) DEFERRABLE",
            ),
            "a check of that name": (
                "ALTER TABLE users ADD CONSTRAINT users_telegram_bot CHECK (bot_id > 0)",
                "CHECK ((bot_id > 0))",
            ),
        },
    ),
    Case(
        operation="add_unique",
        of="deferrable",
        plan=plan_of(
            "add_unique: {table: users, columns: [telegram_id, bot_id], name: users_telegram_bot,"
            " deferrable: initially deferred}"
        ),
        before="ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;",
        partial={"an index without its constraint": (State.PARTIAL, UNIQUE_INDEX)},
    ),
    Case(
        operation="add_primary_key",
        plan=plan_of("add_primary_key: {table: transactions, columns: [id]}"),
        before=NO_PRIMARY_KEY,
        partial={
            "an index without its constraint": (
                State.PARTIAL,
                "CREATE UNIQUE INDEX transactions_pkey ON transactions (id)",
            ),
        },
        conflict={
            "another primary key": (
                "ALTER TABLE transactions ADD CONSTRAINT other PRIMARY KEY (id, user_id)",
                "it has other PRIMARY KEY (id, user_id)",
            ),
        },
    ),
    Case(
        operation="add_foreign_key",
        plan=plan_of(
            "add_foreign_key: {table: transactions, column: bot_id, references: bots.id, on_delete: cascade}"
        ),
        before=BOTS + FILLED_COLUMN,
        partial={
            "not validated": (
                State.PARTIAL,
                (
                    "ALTER TABLE transactions ADD CONSTRAINT transactions_bot_id_fkey FOREIGN KEY (bot_id)"
                    " REFERENCES bots (id) ON DELETE CASCADE NOT VALID"
                ),
            ),
        },
        conflict={
            "another action": (
                "ALTER TABLE transactions ADD FOREIGN KEY (bot_id) REFERENCES bots (id)",
                "FOREIGN KEY (bot_id) REFERENCES bots(id)",
            ),
            "checked at commit only": (
                (
                    "ALTER TABLE transactions ADD FOREIGN KEY (bot_id) REFERENCES bots (id) ON DELETE CASCADE"
                    " DEFERRABLE INITIALLY DEFERRED"
                ),
                "DEFERRABLE INITIALLY DEFERRED",
            ),
            "a constraint of that name": (
                "ALTER TABLE transactions ADD CONSTRAINT transactions_bot_id_fkey CHECK (bot_id > 0)",
                "transactions_bot_id_fkey",
            ),
        },
    ),
    Case(
        operation="set_not_null",
        plan=plan_of("set_not_null: {table: transactions, column: bot_id}"),
        before=FILLED_COLUMN,
        partial={
            "a check without NOT NULL": (
                State.PARTIAL,
                (
                    "ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null"
                    " CHECK (bot_id IS NOT NULL) NOT VALID"
                ),
            ),
            "NOT NULL, and the check is left": (
                State.PARTIAL,
                (
                    "ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null"
                    " CHECK (bot_id IS NOT NULL), ALTER bot_id SET NOT NULL"
                ),
            ),
        },
        conflict={
            "a check of that name": (
                "ALTER TABLE transactions ADD CONSTRAINT online_migrate_bot_id_not_null CHECK (bot_id > 0)",
                "CHECK ((bot_id > 0))",
            ),
        },
    ),
    Case(
        operation="add_check",
        plan=plan_of(
            "add_check: {table: transactions, name: ck_<table>_bot_id, check: bot_id > 0}",
        ),
        before=FILLED_COLUMN,
        partial={
            "not validated": (
                State.PARTIAL,
                (
                    "ALTER TABLE transactions ADD CONSTRAINT ck_transactions_bot_id"
                    " CHECK (bot_id > 0) NOT VALID"
                ),
            ),
        },
        conflict={
            "another check of that name": (
                "ALTER TABLE transactions ADD CONSTRAINT ck_transactions_bot_id CHECK (bot_id < 9)",
                "CHECK ((bot_id < 9))",
            ),
            "a unique of that name": (
                "ALTER TABLE transactions ADD CONSTRAINT ck_transactions_bot_id UNIQUE (bot_id, id)",
                "UNIQUE (bot_id, id)",
            ),
        },
    ),
    Case(
        operation="drop_default",
        plan=plan_of("drop_default: {table: transactions, column: bot_id}"),
        before=FILLED_COLUMN,
    ),
    Case(
        operation="set_default",
        plan=plan_of("set_default: {table: transactions, column: bot_id, value: 7}"),
        before=FILLED_COLUMN,
    ),
    Case(
        operation="set_default",
        of="an expression",
        plan=plan_of("set_default: {table: transactions, column: seen_at, sql: now()}"),
        before="ALTER TABLE transactions ADD COLUMN seen_at timestamptz;",
    ),
    Case(
        operation="drop_not_null",
        plan=plan_of("drop_not_null: {table: transactions, column: bot_id}"),
        before="ALTER TABLE transactions ADD COLUMN bot_id integer NOT NULL DEFAULT 1;",
    ),
    Case(
        operation="verify_owner",
        plan=plan_of("verify_owner: {tables: [users, transactions], column: bot_id}"),
        before=FILLED_COLUMN + "ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;",
        ends_in=State.ABSENT,
    ),
    Case(
        operation="swap_unique",
        of="an index",
        plan=plan_of("swap_unique: {table: users, from: [telegram_id], to: idx_users_telegram_bot}"),
        before=TWO_TENANTS,
    ),
    Case(
        operation="swap_unique",
        of="two constraints",
        plan=plan_of("swap_unique: {table: promo_groups, from: [name], to: idx_promo_groups_bot_name}"),
        before=TWO_TENANTS,
        partial={
            "one of the twins is gone": (
                State.ABSENT,
                "ALTER TABLE promo_groups DROP CONSTRAINT uq_promo_groups_name",
            ),
        },
    ),
    Case(operation="analyze", plan=plan_of("analyze: {table: transactions}"), ends_in=State.ABSENT),
    Case(
        operation="verify_sql",
        plan=plan_of("verify_sql: harness.verify.sql"),
        ends_in=State.ABSENT,
    ),
)
