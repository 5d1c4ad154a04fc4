"""`history`: what was done in a database, by whom, and the SQL as executed."""

from __future__ import annotations

import json

from tests.control.conftest import PLAN
from tests.desk import Desk


def test_history_has_who_what_and_when(control: Desk) -> None:
    """Runs, approvals, statements and interruptions, in the order in which they happened."""
    assert "no plan has run in database" in control.call("history", plan=False).out
    assert not control.has_journal()
    control.environ["SUDO_USER"] = "ada"
    assert control.call("run").code == 75
    assert control.call("approve", "swap", "--by", "grace", "--note", "OPS-1").code == 0
    assert control.call("run").code == 0
    said = control.call("history", plan=False).out
    at = [
        said.index(words)
        for words in (
            "small (run 1): done",
            "plan small starts",
            "started by ada@",
            'ALTER TABLE "public"."users" ADD COLUMN',
            "columns / backfill bot_id / users: executed in",
            "waiting at its gate",
            "exit code 75",
            "approved by grace, account ada@",
            ": OPS-1",
            "plan small resumes",
            "DROP DEFAULT",
            "run ended: done",
        )
    ]
    assert at == sorted(at), said
    (run,) = json.loads(control.call("history", "--json", plan=False).out)
    assert (run["plan"], run["state"]) == ("small", "done")
    assert [len(step["statements"]) for step in run["steps"]] == [1, 1, 1]
    assert [step["statements"][0]["kind"] for step in run["steps"]] == ["window", "batch", "window"]
    assert all(s["statements"][0]["seconds"] >= 0 and s["started_at"] < s["ended_at"] for s in run["steps"])
    assert run["approvals"][0]["approved_by"] == "grace"
    assert control.call("history", "--plan", "other", plan=False).out.startswith("plan other has not run")
    assert control.call("history", "--sql", "--json", plan=False).code == 2


def test_the_script_is_what_explain_had_said_and_makes_the_same(control: Desk) -> None:
    """Executed on the tables as they were, it makes the same columns, defaults and values."""
    explained = [
        s["sql"]
        for step in json.loads(control.call("explain", "--format", "json").out)
        for s in step["statements"]
        if s["kind"] == "window"
    ]
    assert len(explained) == 2
    control.call("run", "--approve", "swap")
    (run,) = json.loads(control.call("history", "--json", plan=False).out)
    executed = [s for step in run["steps"] for s in step["statements"]]
    assert [text for s in executed if s["kind"] == "window" for text in s["sql"]] == explained
    script = control.call("history", "--sql", plan=False).out
    look = "SELECT string_agg(concat_ws(',', id, tg, bot_id), ';' ORDER BY id) FROM users"
    columns = (
        "SELECT string_agg(concat_ws(',', column_name, data_type, is_nullable, column_default), ';'"
        " ORDER BY ordinal_position) FROM information_schema.columns WHERE table_name = 'users'"
    )
    rows, shape = control.ask(look), control.ask(columns)
    control.run_sql("ALTER TABLE users DROP COLUMN bot_id", script)
    assert (control.ask(look), control.ask(columns)) == (rows, shape)


def test_an_adopted_step_is_a_comment_in_the_script(control: Desk) -> None:
    """What another session made is not said to be ours."""
    control.run_sql("ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1")
    control.write(PLAN)
    assert control.call("run").code == 75
    script = control.call("history", "--sql", plan=False).out
    assert "ADD COLUMN" not in script
    assert "add_column bot_id / users: done; no statement of ours" in script
    assert control.call("run", "--approve", "swap").code == 0


def test_a_killed_runner_is_said(at_gate: Desk) -> None:
    """A run that began although none had ended."""
    at_gate.run_sql("DELETE FROM online_migrate.history WHERE event = 'run_ended'")
    assert at_gate.call("run", "--approve", "swap").code == 0
    assert "the runner ended without a word" in at_gate.call("history", plan=False).out
