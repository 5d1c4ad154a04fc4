"""explain: every statement, its locks, how long; with a database and without."""

from __future__ import annotations

import json

from tests.desk import PLANS, WHOLE, Desk, small_text

SWAP = """\
plan multi_tenant: 1 stage, 11 steps
no database given (--dsn): rows, bytes and existing objects are unknown

stage swap (contract, gate: every running release reads and writes within one bot)
  drop_default bot_id
    transactions: instant
      -- lock window, instant
      ALTER TABLE "public"."transactions" ALTER COLUMN "bot_id" DROP DEFAULT;
      lock: ACCESS EXCLUSIVE on public.transactions, instant; waits behind it: reads and writes
    users: instant
"""
SQL = """\
-- columns / add_column bot_id / transactions
ALTER TABLE "public"."transactions" ADD COLUMN "bot_id" integer, ALTER COLUMN "bot_id" \
SET DEFAULT <master.id>;
-- columns / add_column bot_id / users
ALTER TABLE "public"."users" ADD COLUMN "bot_id" integer, ALTER COLUMN "bot_id" SET DEFAULT <master.id>;
-- columns / add_column bot_id / promocodes
ALTER TABLE "public"."promocodes" ADD COLUMN "bot_id" integer, ALTER COLUMN "bot_id" SET DEFAULT <master.id>;
-- columns / add_column bot_id / promo_groups
ALTER TABLE "public"."promo_groups" ADD COLUMN "bot_id" integer, ALTER COLUMN "bot_id" \
SET DEFAULT <master.id>;
"""
ANALYZE = {
    "stage": "finish",
    "phase": "contract",
    "step": "analyze",
    "operation": "analyze",
    "table": "transactions",
    "workers": 1,
    "instant": False,
    "done": False,
    "rows": None,
    "bytes": None,
    "statements": [{"sql": 'ANALYZE "public"."transactions"', "kind": "long", "note": ""}],
    "locks": [
        {
            "relation": "public.transactions",
            "lock": "SHARE UPDATE EXCLUSIVE",
            "instant": False,
            "waits_behind": "nothing of the application",
        }
    ],
}


def test_without_a_database_every_step_over_the_listed_tables_is_named(desk: Desk) -> None:
    """The whole plan can be read on a laptop; that the set has further tables is said at the top."""
    desk.write(WHOLE)
    desk.dsn = ""
    said = desk.call("explain")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[:4] == [
        "plan multi_tenant: 8 stages, 257 steps",
        "no database given (--dsn): rows, bytes and existing objects are unknown",
        "set owned: more tables that reference users may exist; --dsn shows them",
        "",
    ]
    steps = json.loads(desk.call("explain", "--format", "json").out)
    assert len(steps) == 257
    assert {s["step"] for s in steps if s["table"] == "users"} == {
        "add_column bot_id", "backfill bot_id", ("create_index"
            " idx_<table>_bot_id"), "create_index idx_users_telegram_bot",
        "add_foreign_key bot_id", "set_not_null bot_id", "drop_default bot_id", "verify_owner bot_id",
        "swap_unique telegram_id", "analyze",
    }  # fmt: skip
    assert all(s["statements"] for s in steps)
    assert (PLANS / "multi_tenant.yaml").read_text() == WHOLE


def test_the_three_formats(desk: Desk) -> None:
    """Text for people, SQL for review, JSON for scripts: product text, so changed on purpose only."""
    desk.dsn = ""
    assert desk.call("explain", "--stage", "swap").out.startswith(SWAP)
    assert desk.call("explain", "--stage", "columns", "--format", "sql").out == SQL
    steps = json.loads(desk.call("explain", "--stage", "finish", "--format", "json").out)
    assert steps[0] == ANALYZE
    assert [s["table"] for s in steps] == ["transactions", "users", "promocodes", "promo_groups"]


def test_with_a_database_rows_bytes_and_further_tables_are_told(desk: Desk) -> None:
    """The set is resolved, sizes are the server's, and what is done already is marked."""
    desk.write(WHOLE)
    said = desk.call("explain", "--stage", "backfill")
    assert said.code == 0, said.all
    assert "plan multi_tenant: 1 stage, 37 steps" in said.out
    assert "transactions: long, about 1,600 rows, " in said.out
    steps = json.loads(desk.call("explain", "--stage", "backfill", "--format", "json").out)
    assert {"ticket_attachments", "yookassa_refunds"} <= {s["table"] for s in steps}
    assert all(s["bytes"] > 0 for s in steps)
    desk.write(small_text())
    assert desk.call("run", "--through", "columns").code == 0
    done = json.loads(desk.call("explain", "--stage", "columns", "--format", "json").out)
    assert all(s["done"] for s in done)
    said = desk.call("explain", "--stage", "backfill", "--format", "sql")
    assert '"bot_id" = 1 WHERE' in said.out, "the reference is known by now"


def test_tables_that_are_filled_side_by_side_are_named_so(desk: Desk) -> None:
    """Only those of one backfill, and only where no value is read from one of them."""
    desk.write(small_text(pace="{workers: 3}"))
    said = desk.call("explain", "--stage", "backfill")
    assert "\n  backfill bot_id: 3 tables at a time, the largest first\n" in said.out
    derived = "value: {from: {table: users, on: user_id, column: bot_id}}}"
    desk.write(small_text(pace="{workers: 3}").replace("value: <master.id>}", derived))
    said = desk.call("explain", "--stage", "backfill")
    assert said.code == 0, said.err
    assert ": one table at a time, its value is read from users, which is also filled\n" in said.out
