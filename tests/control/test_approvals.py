"""Approvals: who, which account, until when; all are kept, one can be revoked until its stage begins."""

from __future__ import annotations

import json
from importlib import resources

from tests.desk import Desk


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
    text = resources.files("online_migrate.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    control.run_sql(text)
    status = control.call("status")
    assert status.code == 7
    assert "has version 1" in status.err
    assert "upgrades it" in status.err
    assert control.call("run").code == 75
    assert control.call("approve", "swap", "--by", "ada").code == 0
    assert control.call("run").code == 0


def test_a_journal_is_not_upgraded_below_a_runner(control: Desk) -> None:
    text = resources.files("online_migrate.journal").joinpath("schema.sql").read_text(encoding="utf-8")
    control.run_sql(text)
    with control.connect() as other:
        other.execute("SELECT pg_advisory_lock_shared(1869441383, 1)")
        said = control.call("run")
    assert said.code == 7, said.all
    assert "a runner is at work" in said.err
    assert control.ask("SELECT version FROM online_migrate.version") == 1
