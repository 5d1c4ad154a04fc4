"""`status` names the next command in each state of a run, also after a run that failed."""

from __future__ import annotations

import signal

import pytest

from tests.desk import SLOW, Desk, small_text

RUN = "online-migrate run plan.yaml"


def next_of(desk: Desk) -> str:
    lines = desk.call("status").out.splitlines()
    return lines[-1]


def test_stopped_at_a_gate_approved_and_done(desk: Desk) -> None:
    assert desk.call("run", "--through", "columns").code == 0
    assert next_of(desk) == f"next: {RUN}"
    assert desk.call("run").code == 75
    assert next_of(desk) == f"next: when that is true: online-migrate approve plan.yaml swap, then: {RUN}"
    assert desk.call("approve", "swap").code == 0
    assert next_of(desk) == f"next: {RUN}"
    assert desk.call("run").code == 0
    assert next_of(desk) == "next: online-migrate verify plan.yaml"


def test_a_run_that_check_refuses_says_so_and_no_longer_that_it_was_stopped(desk: Desk) -> None:
    """Exit code 3: the run had stopped where it was asked to, and a column was dropped since."""
    assert desk.call("run", "--through", "columns").code == 0
    desk.run_sql("ALTER TABLE users RENAME TO members")
    said = desk.call("run")
    assert said.code in {3, 5}, said.all
    status = desk.call("status").out
    assert "as asked" not in status, status
    assert "nothing was run" in status, status
    assert f"online-migrate check plan.yaml shows what else stops the run, then: {RUN}" in status
    desk.run_sql("ALTER TABLE members RENAME TO users")
    assert desk.call("run").code == 75


def test_after_a_lock_that_was_not_acquired(desk: Desk) -> None:
    """Exit code 4."""
    desk.write(small_text().replace("\nstages:", "\nlocks: {lock_wait: 1s}\nstages:"))
    with desk.connect() as other, other.transaction():
        other.execute("SELECT FROM users LIMIT 1")
        assert desk.call("run", "--through", "columns").code == 4
        status = desk.call("status").out
    assert status.endswith(f"next: wait until the blocking sessions end, or end them, then: {RUN}\n"), status
    assert desk.call("run", "--through", "columns").code == 0


def test_after_a_full_disk(desk: Desk) -> None:
    """Exit code 9: a trigger says what a server without disk space says."""
    assert desk.call("run", "--through", "columns").code == 0
    desk.run_sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$",
    )
    desk.run_sql(
        "CREATE TRIGGER full_disk BEFORE INSERT ON online_migrate.cursor FOR EACH ROW"
        " EXECUTE FUNCTION full_disk()"
    )
    said = desk.call("run")
    assert said.code == 9, said.all
    status = desk.call("status").out
    assert "No space left on device" in status, status
    assert (
        "free the disk space, memory, connections or locks that the server lacks" in status.splitlines()[-1]
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_runner_that_ended(desk: Desk, number: signal.Signals) -> None:
    desk.write(small_text(pace=SLOW))
    child = desk.start()
    desk.await_batches(2, child)
    assert not next_of(desk).startswith("next: ")
    child.send(number)
    child.wait()
    assert next_of(desk) == f"next: {RUN}"
