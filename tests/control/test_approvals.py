"""Approvals: who, which account, until when; all are kept, one can be revoked until its stage begins."""

from __future__ import annotations

import json
from importlib import resources
from typing import Final

from tests.control.conftest import PLAN
from tests.desk import Desk

END_SESSIONS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name ~ 'online-migrate (work|watch|journal)'"
)


def test_an_approval_has_a_person_behind_sudo_and_an_account(at_gate: Desk) -> None:
    at_gate.environ["SUDO_USER"] = "ada"
    assert "approved by ada@" in at_gate.call("approve", "swap", "--note", "OPS-1").out
    assert "approved by grace:" in at_gate.call("approve", "swap", "--by", "grace").out
    status = at_gate.call("status").out
    assert "OPS-1" in status, status
    assert "approved by grace, account ada@" in status, status
    given = json.loads(at_gate.call("status", "--json").out)["approvals"]
    assert [a["approved_by"].partition("@")[0] for a in given] == ["ada", "grace"]
    assert all(a["account"].startswith("ada@") and a["in_force"] for a in given)
    assert at_gate.call("run").code == 0


def test_an_expired_approval_opens_no_gate_and_is_shown(at_gate: Desk) -> None:
    said = at_gate.call("approve", "swap", "--by", "ada", "--expires", "12h")
    assert said.code == 0
    assert "in force until" in said.out
    assert at_gate.ask("SELECT expires_at - approved_at > interval '11h' FROM online_migrate.approval")
    assert at_gate.call("approve", "swap", "--by", "grace", "--expires", "1us").code == 0
    at_gate.run_sql(
        "UPDATE online_migrate.approval SET expires_at = clock_timestamp() - interval '1s' WHERE"
        " approved_by = 'ada'"
    )
    assert at_gate.call("run").code == 75
    status = at_gate.call("status").out
    assert status.count("expired at") == 2, status
    assert "waits at its gate" in " ".join(status.split()), status
    wrong = at_gate.call("approve", "swap", "--expires", "soon")
    assert wrong.code == 2
    assert "--expires" in wrong.err


def test_an_approval_can_be_revoked_until_its_stage_begins(at_gate: Desk) -> None:
    assert at_gate.call("approve", "swap", "--revoke").code == 2
    assert at_gate.call("approve", "swap", "--by", "ada", "--note", "OPS-1").code == 0
    said = at_gate.call("approve", "swap", "--revoke", "--by", "grace", "--note", "2.4 was rolled back")
    assert said.code == 0, said.all
    assert "revoked by grace: the approval of stage swap by ada" in said.out
    assert at_gate.call("run").code == 75
    assert "revoked by grace at" in at_gate.call("status").out
    assert at_gate.call("approve", "swap", "--by", "ada").code == 0
    assert at_gate.call("run").code == 0
    late = at_gate.call("approve", "swap", "--revoke")
    assert late.code == 2
    assert "stage swap has started" in late.err
    assert at_gate.call("report", "-o", "r.html").code == 0
    report = (at_gate.folder / "r.html").read_text()
    for words in ("OPS-1", "2.4 was rolled back", "revoked by grace"):
        assert words in report


def test_a_journal_of_version_1_is_upgraded_by_the_next_run(control: Desk) -> None:
    """Other commands say so; nothing of the old journal is lost."""
    control.run_sql(read_schema())
    status = control.call("status")
    assert status.code == 7
    assert "has version 1" in status.err
    assert "upgrades it" in status.err
    assert control.call("run").code == 75
    assert control.call("approve", "swap", "--by", "ada").code == 0
    assert control.call("run").code == 0


def test_a_journal_is_not_upgraded_below_a_runner(control: Desk) -> None:
    control.run_sql(read_schema())
    with control.connect() as other:
        other.execute("SELECT pg_advisory_lock_shared(1869441383, 1)")
        said = control.call("run")
    assert said.code == 7, said.all
    assert "a runner is at work" in said.err
    assert control.ask("SELECT version FROM online_migrate.version") == 1


def test_a_revoked_approval_of_the_command_line_is_not_given_again_after_a_lost_connection(
    control: Desk,
) -> None:
    """`run --approve` approves once: not again when its sessions are opened again."""
    control.write(
        PLAN.replace(
            "backfill: {", "add_column: {table: users, column: note, type: text}\n      - backfill: {"
        )
    )
    with control.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE users IN SHARE MODE")
        child = control.start("--approve", "swap")
        control.await_true("SELECT to_regclass('online_migrate.approval') IS NOT NULL", child)
        control.await_true("SELECT count(*) = 1 FROM online_migrate.approval", child)
        assert control.call("approve", "swap", "--revoke", "--by", "grace").code == 0
        control.run_sql(END_SESSIONS)
        child.await_words("connected again")
    assert child.wait() == 75, child.said


def test_a_journal_is_upgraded_under_the_lease(control: Desk) -> None:
    """No runner of the older program begins while the upgrade waits for a lock."""
    control.run_sql(read_schema())
    with control.connect() as reader, reader.transaction():
        reader.execute("LOCK TABLE online_migrate.approval IN ACCESS SHARE MODE")
        child = control.start()
        control.await_true("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted", child)
        older = "SELECT NOT pg_try_advisory_lock_shared(1869441383, 1)"
        assert control.ask(older), "the older program could begin"
    assert child.wait() == 75, child.said


def test_a_newer_journal_is_not_set_back(control: Desk) -> None:
    """Two programs upgrade at once; the newer one comes first."""
    control.run_sql(read_schema())
    with control.connect() as newer, newer.transaction():
        newer.execute("UPDATE online_migrate.version SET version = 99")
        child = control.start()
        control.await_true("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted", child)
    assert child.wait() == 7, child.said
    assert control.ask("SELECT version FROM online_migrate.version") == 99


def read_schema() -> str:
    """The journal's first version."""
    return resources.files("online_migrate.journal").joinpath("schema.sql").read_text(encoding="utf-8")
