"""A commit that waits for a synchronous standby is reported in the log and in `status`; its runner does not
count as dead.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
import pytest

from online_migrate.demo.shop import FEWEST_USERS, create_shop
from tests.backfill.throttlers.standby import Pair, start_pair
from tests.desk import Child, Desk, await_true, open_desk, small_text

WAITS: Final = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
STALE: Final = "UPDATE online_migrate.heartbeat SET beat_at = clock_timestamp() - interval '10 minutes'"


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary whose commits wait for its standby."""
    with start_pair() as pair:
        create_shop(pair.primary.dsn, users=FEWEST_USERS)
        set_standbys(pair.primary.dsn, "*")
        yield pair


@pytest.fixture
def desk(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    with open_desk(pair.primary.dsn, tmp_path, small_text()) as desk:
        yield desk


def start_and_lose_standby(pair: Pair, desk: Desk) -> Child:
    """A runner whose lock window commits after the standby has stopped: its journal's next commit waits."""
    runner = desk.start("--through", "columns")
    with desk.connect() as blocker:
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE transactions IN ACCESS SHARE MODE")
        runner.await_words(f"pid {blocker.info.backend_pid}")
        pair.cut()
        blocker.execute("ROLLBACK")
    desk.await_true(WAITS, runner)
    runner.await_words("for a synchronous standby (SyncRep)")
    return runner


def set_standbys(dsn: str, names: str) -> None:
    with psycopg.connect(dsn, autocommit=True, options="-c synchronous_commit=local") as admin:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        admin.execute("SELECT pg_reload_conf()")
        shown = "SHOW synchronous_standby_names"
        await_true(lambda: admin.execute(shown).fetchone() == (names,), f"{shown} is {names!r}")


def test_a_commit_that_waits_is_reported_and_its_runner_is_alive(pair: Pair, desk: Desk) -> None:
    """The standby stops while a step waits for its lock: log and status name the session and the cause, a
    second runner is refused, and when the standby is back the run goes on to its end.
    """
    runner = start_and_lose_standby(pair, desk)
    assert "synchronous_standby_names is '*', connected are 0" in runner.said
    shown = desk.call("status")
    status = " ".join(shown.out.split())
    assert "for a synchronous standby (SyncRep)" in status, shown
    assert "no runner" not in status
    second = desk.call("run")
    assert second.code == 6
    assert "waits for a synchronous standby (SyncRep)" in second.err
    beats = "SELECT beat_at > clock_timestamp() - interval '30 seconds' FROM online_migrate.heartbeat"
    assert desk.ask(beats)
    pair.bring_back()
    assert runner.wait() == 0
    assert "for a synchronous standby" not in desk.call("status").out


def test_a_take_over_says_what_it_waits_for(pair: Pair, desk: Desk) -> None:
    """A runner is killed while its commit waits: `status` shows the session that is left, the next runner
    ends it and reports that its own first commit waits.
    """
    runner = start_and_lose_standby(pair, desk)
    runner.send(signal.SIGKILL)
    runner.wait()
    assert "for a synchronous standby (SyncRep)" in " ".join(desk.call("status").out.split())
    desk.run_sql("SET synchronous_commit = local", STALE)
    following = desk.start("--through", "columns")
    following.await_words("the commit of session online-migrate lease")
    set_standbys(pair.primary.dsn, "")
    assert following.wait() == 0
    assert "stopped after stage columns" in following.said


def test_the_first_commit_of_all_is_reported_too(pair: Pair, desk: Desk) -> None:
    """With the standby stopped before the run begins, the journal's creation waits, and says so."""
    pair.cut()
    runner = desk.start("--through", "tables")
    runner.await_words("the commit of session online-migrate check")
    set_standbys(pair.primary.dsn, "")
    assert runner.wait() == 0


REQUESTS: Final = {
    "approve": ("approve", "swap"),
    "revoke": ("approve", "swap", "--revoke"),
    "pause": ("pause",),
    "redo": ("redo", "add_column"),
}


@pytest.mark.parametrize("words", REQUESTS.values(), ids=REQUESTS)
def test_a_command_whose_commit_waits_says_so_and_may_be_left(
    pair: Pair, desk: Desk, words: tuple[str, ...]
) -> None:
    """What is committed, what to do, and that Ctrl-C keeps it: afterwards other sessions see it."""
    assert desk.call("run", "--through", "columns").code == 0
    assert desk.call("approve", "swap").code == 0
    desk.run_sql("ALTER TABLE users DROP COLUMN bot_id CASCADE")
    pair.cut()
    command = desk.start(*words[1:], command=words[0])
    command.await_words("Ctrl-C ends the wait and keeps the change")
    assert "synchronous_standby_names is '*', connected are 0" in command.said
    command.send(signal.SIGINT)
    command.wait()
    desk.await_true(f"SELECT NOT ({WAITS})")
    if words[0] != "redo":
        made = "SELECT count(*) FROM online_migrate." + ("request" if words == ("pause",) else "approval")
        made += " WHERE revoked_at IS NOT NULL" if "--revoke" in words else ""
        assert desk.ask(made) == (2 if words == ("approve", "swap") else 1)
    set_standbys(pair.primary.dsn, "")
