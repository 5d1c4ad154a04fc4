"""z: done means done, whatever was lost on the way: a standby that missed steps, an answer, a
promoted standby.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import monotonic, sleep

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.backfill.throttlers.standby import Pair, start_pair
from tests.cases.conftest import OpenTrial
from tests.cases.trial import Case
from tests.desk import Desk

TABLES = [f"t{number:02}" for number in range(1, 13)]
TWELVE = "; ".join(
    f"CREATE TABLE {t} (id int PRIMARY KEY, b int); INSERT INTO {t} SELECT generate_series(1, 100)"
    for t in TABLES
)
LAG = f"""
plan: lag
stages:
  - stage: one
    steps:
      - backfill: {{tables: [{", ".join(TABLES)}], column: b, value: 1}}
  - stage: two
    steps:
      - add_column: {{tables: [{", ".join(TABLES)}], column: c, type: integer}}
"""
WAITED_FOR = "SELECT count(*) > 0 FROM pg_locks WHERE relation = '{}'::regclass AND NOT granted"
IS_DONE = """
    SELECT count(*) = 1 FROM online_migrate.step
    WHERE table_name = '{}' AND stage = 'one' AND state = 'done'"""
ATTACHED = "SELECT count(*) = {} FROM pg_stat_replication"
AFTER_FAILOVER_S = 25.0
"""for the reconnect and the first batches on the new primary"""


@pytest.fixture
def pair() -> Iterator[Pair]:
    with start_pair() as pair:
        yield pair


def desk_on(pair: Pair, folder: Path, setup: str, plan: str) -> Iterator[Desk]:
    """A desk whose runner knows both servers; its children are ended with it."""
    ports = f"{pair.primary.port},{pair.standby.port}"
    dsn = (
        f"host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname=postgres target_session_attrs=read-write"
    )
    desk = Desk(folder=folder, dsn=dsn)
    (folder / "plan.yaml").write_text(plan)
    desk.run_sql(*setup.split("; "))
    pair.await_caught_up()
    try:
        yield desk
    finally:
        for child in desk.children:
            child.end()


@pytest.fixture
def lagging(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    yield from desk_on(pair, tmp_path, TWELVE, LAG)


def promote(pair: Pair, mode: str) -> None:
    """The primary ends, and its standby takes over."""
    pair.primary._end_process(mode)
    with psycopg.connect(pair.standby.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_promote()")


def test_z1_steps_that_a_failover_lost_are_done_again(pair: Pair, lagging: Desk) -> None:
    """The standby misses the last steps and is promoted: the run begins at the first step that its
    journal says is open.
    """
    primary = Desk(folder=lagging.folder, dsn=pair.primary.dsn)
    one, other = psycopg.connect(pair.primary.dsn), psycopg.connect(pair.primary.dsn)
    with closing(one), closing(other):
        one.execute("LOCK TABLE t03 IN SHARE MODE")
        other.execute("LOCK TABLE t07 IN SHARE MODE")
        child = lagging.start()
        primary.await_true("SELECT to_regclass('online_migrate.step') IS NOT NULL", child)
        primary.await_true(IS_DONE.format("t02"), child)
        primary.await_true(WAITED_FOR.format("t03"), child)
        pair.await_caught_up()
        with psycopg.connect(pair.standby.dsn, autocommit=True) as standby:
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.execute("SELECT pg_reload_conf()")
        primary.await_true(ATTACHED.format(0), child)
        one.rollback()
        primary.await_true(IS_DONE.format("t06"), child)
        primary.await_true(WAITED_FOR.format("t07"), child)
        promote(pair, "immediate")
    code = child.wait(60)
    left = {t: lagging.ask(f"SELECT count(*) FROM {t} WHERE b IS NULL") for t in TABLES}
    assert (code, sum(left.values())) == (0, 0), (
        f"exit {code}, rows without a value: {left}\n{child.said[-2000:]}"
    )
    assert lagging.ask("SELECT count(*) FROM online_migrate.step WHERE state <> 'done'") == 0
    assert lagging.call("verify").code == 0


HOLD = """
plan: hold
stages:
  - stage: backfill
    pace: {batch_target: 5ms, duty: 10%, min_rows: 1, max_rows: 50}
    hold_when: {standby_lag: 64MiB}
    steps:
      - backfill: {table: t, column: b, value: 1}
"""
ROWS = (
    "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT g, g FROM generate_series(1, 20000) g; "
    "ALTER TABLE t ADD COLUMN b int"
)
DONE = "SELECT coalesce(sum(rows_done), 0) FROM online_migrate.cursor"


@pytest.fixture
def holding(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    yield from desk_on(pair, tmp_path, ROWS, HOLD)


def test_z3_the_promoted_standby_is_not_a_lost_one(pair: Pair, holding: Desk) -> None:
    """A clean failover: the standby that ended is the server that we are connected to, and the
    backfill makes progress.
    """
    child = holding.start()
    holding.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
    holding.await_true(f"SELECT ({DONE}) > 500", child)
    promote(pair, "fast")
    moved, deadline = holding.ask(DONE), monotonic() + AFTER_FAILOVER_S
    while monotonic() < deadline:
        if holding.ask(DONE) > moved:
            return
        sleep(0.1)
    pytest.fail(f"no row in {AFTER_FAILOVER_S} s after the promotion:\n{child.said[-1500:]}")


class AnswerCut(threading.Thread):
    """A proxy: once armed, the server gets the request that holds ``words``, and its answer is lost
    with the connection.
    """

    def __init__(self, port: int, words: tuple[bytes, ...]) -> None:
        super().__init__(daemon=True)
        self.armed, self.cut = threading.Event(), threading.Event()
        self._target, self._words = port, words
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                lost = threading.Event()
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._copy, args=(source, sink, lost, source is client), daemon=True
                    ).start()

    def _copy(self, source: socket.socket, sink: socket.socket, lost: threading.Event, ours: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if (
                    ours
                    and self.armed.is_set()
                    and not self.cut.is_set()
                    and all(w in data for w in self._words)
                ):
                    self.cut.set()
                    lost.set()
                elif not ours and lost.is_set():
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


STOPPED = """
plan: stopped
stages:
  - stage: backfill
    pace: {batch_target: 5ms, duty: 10%, min_rows: 1, max_rows: 50}
    steps:
      - backfill: {table: t, column: b, value: 1}
"""


def test_z2_a_stop_is_kept_until_the_runner_has_obeyed(trial_of: OpenTrial) -> None:
    """The connection breaks after the server took the request and before its answer is read: the run
    stops all the same.
    """
    setup = ROWS.replace("20000", "2000")
    trial = trial_of(Case(name="z2", setup=setup, plan=STOPPED))
    dsn = conninfo_to_dict(trial.admin.dsn)
    proxy = AnswerCut(int(str(dsn["port"])), (b"request", b"taken_at", b"UPDATE"))
    proxy.start()
    try:
        runner = Desk(
            folder=trial.desk.folder,
            dsn=make_conninfo(
                trial.admin.dsn, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable"
            ),
        )
        with psycopg.connect(
            trial.admin.dsn
        ) as application:  # its row lock: the backfill cannot end before the stop
            application.execute("SELECT FROM t WHERE id = 2000 FOR UPDATE")
            child = runner.start()
            trial.desk.children.append(child)
            trial.admin.await_true("SELECT to_regclass('online_migrate.cursor') IS NOT NULL", child)
            trial.admin.await_true(f"SELECT ({DONE}) > 300", child)
            proxy.armed.set()
            assert trial.call("stop").code == 0
            code = child.wait(60)
        assert proxy.cut.is_set(), f"the answer was not cut:\n{child.said}"
        assert code == 130, f"exit {code}\n{child.said[-1500:]}"
    finally:
        proxy.close()
