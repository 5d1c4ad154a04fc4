"""h, b: what is reported is complete, and a machine can read it where it was asked for."""

from __future__ import annotations

import json
import re
from time import monotonic, sleep

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import Case

USERS = """
    CREATE TABLE users (id serial PRIMARY KEY, tg bigint NOT NULL UNIQUE);
    INSERT INTO users (tg) SELECT generate_series(1, 100);"""
SMALL = """
plan: small
stages:
  - stage: columns
    steps:
      - add_column: {table: users, column: bot_id, type: integer, new_rows: 1}
      - backfill: {table: users, column: bot_id, value: 1}
  - stage: swap
    gate: {approval: every release writes bot_id}
    steps:
      - drop_default: {table: users, column: bot_id}
"""


@pytest.mark.parametrize(
    ("plan", "arguments", "code"),
    [
        pytest.param(SMALL, (), 75, id="h1"),
        pytest.param(SMALL, ("--approve", "swap"), 0, id="h1-to-the-end"),
        pytest.param(
            SMALL.replace("table: users, column: bot_id, value", "table: nobody, column: bot_id, value"),
            (),
            3,
            id="h1-refused",
        ),
        pytest.param(SMALL.replace("type: integer", "typ: integer"), (), 2, id="h1-wrong-plan"),
        pytest.param(SMALL.replace("value: 1", "value: {sql: 1 / (id - 50)}"), (), 3, id="h1-failed"),
        pytest.param(SMALL, ("--through", "nowhere"), 2, id="h1-wrong-option"),
    ],
)
def test_h1_every_line_of_a_json_log_is_json(
    trial_of: OpenTrial, plan: str, arguments: tuple[str, ...], code: int
) -> None:
    """--log-format json: start, findings, summary, error and remedy are objects too, however the run ends."""
    trial = trial_of(Case(name="h1", setup=USERS, plan=plan))
    said = trial.call("run", "--log-format", "json", *arguments)
    assert said.code == code, said.all
    assert said.err.strip(), "something is logged"
    for line in said.err.splitlines():
        try:
            assert isinstance(json.loads(line), dict), line
        except ValueError:
            pytest.fail(f"not JSON: {line}\n{said.err}")


def approved_twice(trial_of: OpenTrial) -> tuple[str, str, str]:
    """What status, status --json and the report say after two approvals."""
    trial = trial_of(Case(name="h2", setup=USERS, plan=SMALL))
    assert trial.call("run").code == 75
    first = ("--by", "release manager", "--note", "release 2.4 is live, ticket OPS-1")
    for by in (first, ("--by", "second approver")):
        assert trial.call("approve", "swap", *by).code == 0
    status, machine = trial.call("status").out, trial.call("status", "--json").out
    assert trial.call("run").code == 0
    trial.call("report", "-o", "r.html")
    return status, machine, (trial.desk.folder / "r.html").read_text()


def test_h2_status_says_who_approved(trial_of: OpenTrial) -> None:
    """After approve, status says that the gate is open, by whom, and what comes next."""
    status, machine, _ = approved_twice(trial_of)
    assert re.search("(?i)approved", status), status
    assert "second approver" in status, status
    assert "second approver" in machine, machine


def test_h2_the_report_keeps_every_approval(trial_of: OpenTrial) -> None:
    """A second approval hides neither the first nor its note."""
    _, _, report = approved_twice(trial_of)
    for words in ("release manager", "OPS-1", "second approver"):
        assert words in report


def test_h2_run_approve_is_kept_too(trial_of: OpenTrial) -> None:
    """An approval that was given with the run is history like any other."""
    trial = trial_of(Case(name="h2", setup=USERS, plan=SMALL))
    assert trial.call("run", "--approve", "swap").code == 0
    assert trial.ask("SELECT count(*) FROM online_migrate.approval") == 1
    trial.call("report", "-o", "r.html")
    assert "every release writes bot_id" in (trial.desk.folder / "r.html").read_text()


FLAG = """
plan: p
stages:
  - stage: b
    pace: {duty: 4%, batch_target: 20ms, max_rows: 80, min_rows: 20}
    hold_when: {queries: [{name: flag, sql: "SELECT n FROM cnt", limit: 10}]}
    steps:
      - backfill: {table: t, column: c, value: 7}
"""
FLAGGED = """
    CREATE TABLE t (id serial PRIMARY KEY, c int); INSERT INTO t SELECT FROM generate_series(1, 100000);
    CREATE TABLE cnt (n int); INSERT INTO cnt VALUES (1);"""
HELD_S = 12.0


def test_b1_a_hold_ends_below_its_limit_or_says_where(trial_of: OpenTrial) -> None:
    """Red at 10 of 10, then 9: the backfill makes progress, or its reason says at which value it will."""
    trial = trial_of(Case(name="b1", setup=FLAGGED, plan=FLAG))
    done = "SELECT coalesce(sum(rows_done), 0) FROM online_migrate.cursor"
    child = trial.desk.start()
    trial.admin.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
    trial.admin.await_true(f"SELECT ({done}) > 100", child)
    trial.admin.run_sql("UPDATE cnt SET n = 10")
    child.await_words("flag")
    trial.admin.run_sql("UPDATE cnt SET n = 9")
    before, deadline = trial.ask(done), monotonic() + HELD_S
    while monotonic() < deadline:
        said = trial.call("status").all
        if trial.ask(done) > before or re.search(r"flag.*(below|resumes|until).*\b9\b", said):
            return
        sleep(0.2)
    pytest.fail(f"{trial.ask(done) - before} rows in {HELD_S} s at 9 of 10:\n{trial.call('status').all}")


SLOW = """
    CREATE TABLE t (id serial PRIMARY KEY, c int); INSERT INTO t SELECT FROM generate_series(1, {rows});
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds});
      RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION slow();"""
FLOOR = """
plan: p
stages:
  - stage: b
    pace: {duty: 100%, batch_target: 20ms, min_rows: MIN}
    steps:
      - backfill: {table: t, column: c, value: 7}
"""


@pytest.mark.parametrize(
    ("rows", "seconds", "smallest"),
    [
        pytest.param(250, 0.005, 50, id="b2"),
        pytest.param(8, 0.2, 1, id="b2-one-row"),
    ],
)
def test_b2_batches_that_cannot_get_smaller_are_reported(
    trial_of: OpenTrial, rows: int, seconds: float, smallest: int
) -> None:
    """Where min_rows keeps every batch far above its target, the run says so once, with both figures."""
    setup = SLOW.format(rows=rows, seconds=seconds)
    trial = trial_of(Case(name="b2", setup=setup, plan=FLOOR.replace("MIN", str(smallest))))
    said = trial.call("run")
    assert said.code == 0, said.all
    lines = [
        line for line in said.all.splitlines() if re.search("(?i)min_rows|floor|longer than|smallest", line)
    ]
    assert len(lines) == 1, said.all
    assert "20 ms" in lines[0], lines[0]
