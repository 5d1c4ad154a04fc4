"""`tune` changes the pace of a backfill that runs, and of the next runners."""

from __future__ import annotations

import json
import signal
from typing import Final

from tests.control.conftest import PLAN
from tests.desk import Desk

ROWS: Final = "INSERT INTO users (tg) SELECT g FROM generate_series(1001, 20000) g"
SLOWEST: Final = "{batch_target: 1ms, duty: 0.1%, min_rows: 1, max_rows: 5}"
"""a batch of one page, then seconds of pause: hours in all"""
BATCHES: Final = "SELECT coalesce((SELECT batches FROM online_migrate.cursor), 0)"


def test_a_running_backfill_gets_another_pace_and_keeps_it(control: Desk) -> None:
    control.run_sql(ROWS)
    control.write(PLAN.replace("  - stage: columns\n", f"  - stage: columns\n    pace: {SLOWEST}\n"))
    child = control.start()
    control.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
    control.await_true(f"SELECT ({BATCHES}) > 0", child)
    shown = control.call("tune")
    assert shown.code == 0, shown.all
    assert "stage columns: batch_target 1ms, duty 0.1%, min_rows 1, max_rows 5" in shown.out

    said = control.call("tune", "--by", "ada", "--table", "users", "--max-rows", "500")
    assert said.code == 0, said.all
    assert "tuned by ada, from the next batch on" in said.out
    assert "stage columns, table users: " in said.out
    assert "max_rows 500 * (plan: 5)" in said.out
    child.await_words("pace tuned by ada: users: max_rows 500")
    assert "pace tuned by ada" in json.loads(control.call("status", "--json").out)["reason"]

    child.send(signal.SIGKILL)
    child.wait()
    said = control.call("tune", "--by", "grace", "--duty", "100%", "--batch-target", "50ms")
    assert "from the next run on" in said.out
    said = control.call("run")
    assert said.code == 75, said.all
    assert "pace tuned by grace: all tables: batch_target 50ms, duty 100%; users: max_rows 500" in said.err
    assert control.ask("SELECT count(*) FROM users WHERE bot_id IS NULL") == 0
    assert (
        control.ask("SELECT count(*) FROM online_migrate.request WHERE kind = 'tune' AND taken_at IS NULL")
        == 0
    )

    said = control.call("tune", "--reset")
    assert said.code == 0
    assert "*" not in said.out


def test_what_cannot_be_tuned(control: Desk) -> None:
    assert "there is no run of plan small" in control.call("tune", "--duty", "50%").err
    assert control.call("run").code == 75
    for arguments, words in (
        (("--duty", "much"), "stage columns: duty: expected the form 50%"),
        (("--min-rows", "9", "--max-rows", "8"), "min_rows 9 is more than max_rows 8"),
        (("--duty", "150%"), "duty 150% is more than 1 worker can do"),
        (("--table", "orders", "--duty", "50%"), "no step of plan small is about table orders"),
        (("--reset", "--duty", "50%"), "--reset takes no new values"),
    ):
        said = control.call("tune", *arguments)
        assert said.code == 2, said.all
        assert words in said.err, said.err
    assert control.ask("SELECT count(*) FROM online_migrate.request") == 0
    assert control.call("run", "--approve", "swap").code == 0
    assert "plan small is done" in control.call("tune", "--duty", "50%").err
