"""Objects that already exist, what changed since the run started, and what others write in between."""

from __future__ import annotations

import pytest

from tests.desk import Desk, small_text

NOTHING_OPEN = """
SELECT array_agg(x) FROM (SELECT stage || ' / ' || step FROM online_migrate.step WHERE state <> 'done'
                UNION ALL SELECT stage FROM online_migrate.stage WHERE state <> 'done') AS t (x)"""


@pytest.mark.parametrize(
    ("there", "words"),
    [
        (
            "ALTER TABLE users ADD COLUMN bot_id bigint",
            "users.bot_id already exists as bigint",
        ),
        (
            "CREATE INDEX idx_transactions_bot_id ON transactions (user_id)",
            ("idx_transactions_bot_id already exists with another definition: CREATE INDEX"
                " idx_transactions_bot_id ON public.transactions"),
        ),
        (
            "CREATE TABLE bots (id integer PRIMARY KEY)",
            "table bots already exists with another definition",
        ),
        (
            "CREATE TABLE reports (telegram_id bigint REFERENCES users (telegram_id))",
            ("foreign key reports_telegram_id_fkey of reports references ix_users_telegram_id, the unique of"
                " users that is to be dropped"),
        ),
    ],
    ids=["column", "index", "table", "foreign key on the old unique"],
)  # fmt: skip
def test_what_is_in_the_way_stops_the_run_before_it_begins(desk: Desk, there: str, words: str) -> None:
    """Exit 3 with the existing object and what to do; the schema is unchanged, and no journal is created."""
    desk.run_sql(there)
    before = desk.end()
    said = desk.call("run")
    assert said.code == 3, said.all
    assert words in said.err
    assert "next: fix each of these, then run the same command again" in said.err
    assert desk.end() == before
    assert not desk.has_journal()


def test_duplicates_are_shown_before_the_run_begins(desk: Desk) -> None:
    """Rows that prevent a new unique from being built are reported with examples; nothing is run."""
    unique = (
        "      - create_index: {table: users, name: idx_users_language, columns: [language], unique: true}\n"
    )
    text = small_text()
    begin = text.index("      - create_index: {table: users,")
    desk.write(text[:begin] + unique + text[begin:])
    said = desk.call("run")
    assert said.code == 3
    assert "duplicates in users (language) keep idx_users_language from being built: (" in said.err
    assert " times" in said.err
    assert "→ merge or delete these rows" in said.err
    assert not desk.has_journal()


def test_uniques_above_the_backfill_are_refused(desk: Desk) -> None:
    """They would make every batch a key update that child inserts wait for: check says so, and where to move
    them.
    """
    text = small_text()
    begin, end = text.index("  - stage: uniques"), text.index("  - stage: constraints")
    backfill = text.index("  - stage: backfill")
    desk.write(text[:backfill] + text[begin:end] + text[backfill:begin] + text[end:])
    said = desk.call("check")
    assert said.code == 3
    assert "unique index idx_users_telegram_bot of users is on bot_id, which the later step" in said.out
    assert "→ move this step below backfill bot_id" in said.out


def test_a_changed_plan_is_told_and_can_be_accepted(desk: Desk) -> None:
    """Pace, throttlers and gates may change at any time; of anything else it is said what changed and how to
    accept it.

    Accepted, the run goes on with steps that are new, gone or moved, and none stays open.
    """
    assert desk.call("run", "--through", "backfill").code == 0
    text = small_text(pace="{batch_target: 10ms, duty: 90%}").replace(
        "standby_lag: 64MiB", "standby_lag: 1GiB"
    )
    text = text.replace("every running release reads", "each release reads")
    desk.write(text)
    said = desk.call("run", "--through", "backfill")
    assert said.code == 0, said.all

    gone = "      - swap_unique: {table: promo_groups, from: [name], to: idx_promo_groups_bot_name}\n"
    new = "      - create_index: {table: users, name: idx_users_new, columns: [created_at, bot_id]}\n"
    assert gone in text
    text = text.replace(gone, "").replace("  - stage: constraints", new + "\n  - stage: constraints")
    begin, end = text.index("  - stage: uniques"), text.index("  - stage: constraints")
    indexes = text.index("  - stage: indexes")
    text = text[:indexes] + text[begin:end] + text[indexes:begin] + text[end:]
    desk.write(text)
    said = desk.call("run")
    assert said.code == 2
    assert (
        "error: the plan changed since the run began:\n"
        "  - stage swap, step swap_unique name: was removed\n"
        "  - stage uniques, step create_index idx_users_new: was added\n"
        "next: restore the plan as it was, or run with --accept-changed-plan: steps that are done stay done"
    ) in said.err
    assert desk.ask("SELECT state FROM online_migrate.run") == "stopped"
    said = desk.call("run", "--accept-changed-plan")
    assert said.code == 75, said.all
    assert "\nstage swap waits at its gate: each release reads and writes within one bot" in said.err
    assert (
        "next: when that is true: online-migrate approve plan.yaml swap, then run the same command again"
        in said.err
    )
    said = desk.call("approve", "swap", "--by", "Ada", "--note", "2.4 is live")
    assert said.code == 0
    assert said.out == (
        "approved by Ada: each release reads and writes within one bot\nnext: online-migrate run plan.yaml\n"
    )
    assert desk.call("run").code == 0
    assert desk.ask(NOTHING_OPEN) is None
    stages = "SELECT array_agg(stage ORDER BY position) FROM online_migrate.stage"
    assert desk.ask(stages) == [
        "tables", "columns", "backfill", "uniques", "indexes", "constraints", "swap", "finish",
    ]  # fmt: skip
    assert desk.ask("SELECT count(*) FROM pg_indexes WHERE indexname = 'idx_users_new'") == 1
    assert desk.ask("SELECT count(*) FROM pg_constraint WHERE conname = 'promo_groups_name_key'") == 1
    said = desk.call("run")
    assert said.code == 0
    assert "plan multi_tenant is done since 20" in said.out
    assert "; nothing was run\nnext: online-migrate verify plan.yaml" in said.out
    assert desk.call("verify").code == 0


def without_promo_groups() -> str:
    text = small_text(tables=("transactions", "users", "promocodes"))
    return "".join(line for line in text.splitlines(keepends=True) if "promo_groups" not in line)


def test_a_table_that_vanished_can_be_taken_out_of_the_plan(desk: Desk) -> None:
    """Between two stages: exit 3 with both ways on, and the second of them works."""
    assert desk.call("run", "--through", "backfill").code == 0
    desk.run_sql("DROP TABLE promo_groups CASCADE")
    said = desk.call("run")
    assert said.code == 3
    assert "table public.promo_groups does not exist" in said.err
    assert "restore it, or take it out of the plan and run with --accept-changed-plan" in said.err
    desk.write(without_promo_groups())
    said = desk.call("run", "--accept-changed-plan", "--approve", "swap")
    assert said.code == 0, said.all
    assert desk.ask(NOTHING_OPEN) is None
    assert desk.ask("SELECT count(*) FROM online_migrate.frozen_table WHERE table_name = 'promo_groups'") == 0


def test_a_table_that_vanishes_after_the_check_stops_its_step(desk: Desk) -> None:
    """What check saw may be dropped before its step runs: exit 3, the state kept, and the step named."""
    with desk.connect() as connection:
        connection.execute("BEGIN; LOCK TABLE transactions IN ROW EXCLUSIVE MODE")
        child = desk.start()
        child.await_words("columns / add_column bot_id / transactions")
        desk.run_sql("DROP TABLE promo_groups CASCADE")
        connection.execute("ROLLBACK")
    assert child.wait() == 3, child.said
    assert (
        "error: columns / add_column bot_id / promo_groups: table public.promo_groups does not exist"
        in child.said
    )
    assert desk.ask("SELECT state || ' ' || reason FROM online_migrate.run").startswith(
        "failed columns / add_column"
    )
    assert desk.ask("SELECT state FROM online_migrate.stage WHERE stage = 'columns'") == "failed"


def test_nulls_that_are_written_again_after_the_backfill_are_swept_up(desk: Desk) -> None:
    """A statement that writes NULL explicitly costs a sweep, not the run; the rows are said to be late."""
    assert desk.call("run", "--through", "uniques").code == 0
    desk.run_sql("UPDATE transactions SET bot_id = NULL WHERE id % 100 = 0")
    said = desk.call("run", "--approve", "swap")
    assert said.code == 0, said.all
    assert "rows without a value found after the pass" in said.err
    assert desk.ask("SELECT count(*) FROM transactions WHERE bot_id IS NULL") == 0
    assert desk.call("verify").code == 0
