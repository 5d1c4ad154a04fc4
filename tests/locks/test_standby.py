"""With standbys: a COMMIT that waits for them holds no lock, and readers there are checked before ACCESS
EXCLUSIVE.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from pydantic import ValidationError

from online_migrate.engine.check.standbys import find_standbys
from online_migrate.errors import LockNotAcquired
from online_migrate.events import LockHeld
from online_migrate.plan.model import LockRules, Plan, Requires
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.standbys import Standbys
from tests.backfill.throttlers.standby import Pair, start_pair
from tests.locks.beside import (
    READ,
    Application,
    Site,
    await_true,
    blocker,
    ddl,
    in_thread,
    is_waiting,
    need,
    pause,
    site_on,
)

ADD = "ALTER TABLE public.child ADD COLUMN extra int"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A primary and a standby on which nothing is cancelled for 30 s, as is the default."""
    with start_pair({"max_standby_streaming_delay": "30s", "hot_standby": "on"}) as pair:
        yield pair


@pytest.fixture
def pair_site(pair: Pair) -> Iterator[Site]:
    with psycopg.connect(pair.primary.dsn, autocommit=True) as admin:
        admin.execute("DROP TABLE IF EXISTS child, parent")
    with site_on(pair.primary.dsn) as site:
        pair.await_caught_up()
        yield site
    with psycopg.connect(pair.primary.dsn, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM RESET ALL")
        admin.execute("SELECT pg_reload_conf()")


def wait_for_standbys(site: Site, names: str, commit: str) -> None:
    """From here on every COMMIT waits for these standbys, unless its session says otherwise."""
    with psycopg.connect(site.dsn, autocommit=True) as admin:
        admin.execute("SET synchronous_commit = off")
        admin.execute(f"ALTER SYSTEM SET synchronous_commit = '{commit}'".encode())
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        admin.execute("SELECT pg_reload_conf()")
        await_true(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == (names,))
    pause(0.2)


def test_7_a_dead_synchronous_standby(pair_site: Site) -> None:
    """A COMMIT would wait forever, with the lock held and readers of the primary behind it; a window's does
    not.
    """
    wait_for_standbys(pair_site, "nobody", "on")
    plain = psycopg.connect(pair_site.dsn, autocommit=True)
    with plain, psycopg.connect(pair_site.dsn, autocommit=True) as reader:
        with in_thread(lambda: plain.execute("ALTER TABLE public.child ADD COLUMN plain int")):
            pause(0.3)
            reader.execute("SET statement_timeout = '400ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                reader.execute(READ.encode())
            plain.cancel_safe()
        with Application(pair_site.dsn, [READ]) as application:
            pair_site.window().run([need("child")], ddl(ADD))
            assert application.longest_s < 0.3
    (held,) = pair_site.heard.of(LockHeld)
    assert held.held_s < 0.3


def test_7_remote_apply_behind_a_reader(pair: Pair, pair_site: Site) -> None:
    """With remote_apply one reader of the standby holds COMMIT up; a window's lock is released at once all
    the same.
    """
    name = pair_site.watch.execute("SELECT application_name FROM pg_stat_replication").fetchone()
    assert name is not None
    wait_for_standbys(pair_site, str(name[0]), "remote_apply")
    with psycopg.connect(pair.standby.dsn) as reader:
        reader.execute(READ.encode())
        with Application(pair_site.dsn, [READ]) as application:
            pair_site.window().run([need("child")], ddl(ADD))
            pause(0.2)
            assert application.longest_s < 0.3
        reader.rollback()


def test_8_standbys_replay_access_exclusive(pair: Pair, pair_site: Site) -> None:
    """The primary's ALTER is instant; on the standby a new reader waits behind it, which waits behind an
    old one.
    """
    old, new = psycopg.connect(pair.standby.dsn), psycopg.connect(pair.standby.dsn, autocommit=True)
    with old, new:
        old.execute(READ.encode())
        began = monotonic()
        pair_site.work.execute(ADD.encode())
        assert monotonic() - began < 0.5
        await_true(lambda: new.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (1,))
        new.execute("SET statement_timeout = '400ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            new.execute(READ.encode())
        old.rollback()
        new.execute(READ.encode())


def test_a_reader_of_a_named_standby_is_waited_for(pair: Pair, pair_site: Site) -> None:
    """It is named with its standby; when it goes the window goes on; SHARE ROW EXCLUSIVE, which is not
    replayed, does not wait.
    """
    name = f"host=127.0.0.1 port={pair.standby.port}"
    window = pair_site.window(lock_wait_s=0.8)
    window.standbys = Standbys(connector=Connector(dsn=pair.primary.dsn), names=[name])
    with psycopg.connect(pair.standby.dsn, application_name="report") as reader:
        reader.execute(READ.encode())
        pause(0.3)
        with pytest.raises(LockNotAcquired) as caught:
            window.run([need("child")], ddl(ADD))
        assert f"pid {reader.info.backend_pid} on standby {name}" in str(caught.value)
        reader.rollback()
    window.run([need("child")], ddl(ADD))
    window.standbys.close()


def test_a_standby_that_does_not_answer_counts_as_in_the_way(site: Site) -> None:
    """Fail closed: of its readers nothing is known."""
    window = site.window(lock_wait_s=0.5)
    window.standbys = Standbys(connector=Connector(dsn=site.dsn), names=["port=1"])
    with pytest.raises(LockNotAcquired, match="standby port=1 does not answer"):
        window.run([need("child")], ddl(ADD))
    with blocker(site.dsn, "SELECT 1"):
        assert not is_waiting(site.watch, site.work.info.backend_pid)


def plan_with(standbys: list[str]) -> Plan:
    return Plan(
        name="test",
        requires=Requires(),
        schema="public",
        secrets={},
        table_sets={},
        locks=LockRules(standbys=standbys),
        stages=(),
        path=Path("test.yaml"),
    )


def test_check_asks_for_the_standbys(pair: Pair, pair_site: Site) -> None:
    """A standby that streams and is not named is a warning that names max_standby_streaming_delay; a named
    one must answer, be a standby, and is then no finding.
    """

    def codes(*standbys: str) -> list[tuple[str, str]]:
        found = find_standbys(plan_with(list(standbys)), pair_site.watch)
        return [(f.code, f.severity.value) for f in found]

    assert codes() == [("standbys", "warn")]
    (finding,) = find_standbys(plan_with([]), pair_site.watch)
    assert "max_standby_streaming_delay" in finding.fact
    assert codes(f"port={pair.standby.port}") == []
    assert codes("port=1") == [("standby_silent", "stop")]
    assert codes(f"port={pair.primary.port}") == [("no_standby", "stop")]
    with pytest.raises(ValidationError, match="it is no connection string"):
        plan_with(["no conninfo"])


def test_a_plan_holds_no_password() -> None:
    """A plan is in a repository: a standby's password does not belong there."""
    with pytest.raises(ValidationError, match="PGPASSWORD"):
        LockRules(standbys=["host=replica password=hunter2"])
