"""The multi-tenant plan on the whole shop: where it ends, what verify sees afterwards, and the order of its
blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.conftest import dropped_after
from tests.desk import WHOLE, Desk, SessionCount, open_desk
from tests.servers import TestServer

pytestmark = pytest.mark.timeout(1200)  # two whole runs side by side on a machine that may be busy

NewDatabase = Callable[[str | None], str]
WHOLE_RUN_S = 900
"""ends a run that hangs; the run's end is what is waited for"""
EXECUTED = (
    "SELECT array_agg(query) FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE"
    " datname = %s)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run of the whole plan that nothing disturbed."""

    template: str
    """a database without sessions"""
    explained: str
    """`explain --stage constraints --format sql`, from before the run"""
    executed: frozenset[str]
    most_sessions: tuple[str, ...]
    end: tuple[str, dict[str, str]]
    moved_end: tuple[str, dict[str, str]]
    """of a second run, of the plan with its indexes above the backfill"""


@pytest.fixture(scope="module")
def finished(
    server: TestServer,
    new_database: NewDatabase,
    shop_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Finished]:
    name = new_database(shop_template)
    with ExitStack() as stack:
        dsn = stack.enter_context(dropped_after(server, name))
        second_dsn = stack.enter_context(dropped_after(server, new_database(shop_template)))
        read_executed = stack.enter_context(statistics(server, new_database))
        desk = stack.enter_context(open_desk(dsn, tmp_path_factory.mktemp("finished"), WHOLE))
        second = stack.enter_context(open_desk(second_dsn, tmp_path_factory.mktemp("moved"), moved_text()))
        with chdir(desk.folder), SessionCount(dsn) as sessions:
            explained = desk.call("explain", "--stage", "constraints", "--format", "sql").out
            children = (
                desk.start("--approve", "swap", "--metrics-port", "0"),
                second.start("--approve", "swap"),
            )
            for child in children:  # side by side: they share nothing but the server
                assert child.wait(WHOLE_RUN_S) == 0, child.said
        yield Finished(
            template=name,
            explained=explained,
            executed=frozenset(" ".join(q.split()) for q in read_executed(dsn)),
            most_sessions=sessions.most,
            end=desk.end(),
            moved_end=second.end(),
        )


def moved_text() -> str:
    """The plan with its indexes above the backfill."""
    begin, end = WHOLE.index("  - stage: indexes"), WHOLE.index("  - stage: uniques")
    backfill = WHOLE.index("  - stage: backfill")
    return WHOLE[:backfill] + WHOLE[begin:end] + WHOLE[backfill:begin] + WHOLE[end:]


@contextmanager
def statistics(server: TestServer, new_database: NewDatabase) -> Iterator[Callable[[str], list[str]]]:
    """What was executed in a database, read by way of another, so that the one has no extension in it."""
    with (
        dropped_after(server, new_database(None)) as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        connection.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute("SELECT pg_stat_statements_reset()")  # it keeps 5,000, of all databases

        def read(of: str) -> list[str]:
            row = connection.execute(EXECUTED, [conninfo_to_dict(of)["dbname"]]).fetchone()
            return [] if row is None else list(row[0] or ())

        yield read


@pytest.fixture
def done(
    server: TestServer,
    new_database: NewDatabase,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    """A copy of the database in which the plan is done."""
    monkeypatch.chdir(tmp_path)
    with (
        dropped_after(server, new_database(finished.template)) as dsn,
        open_desk(dsn, tmp_path, WHOLE) as desk,
    ):
        yield desk


def test_a_run_has_six_sessions_at_most(finished: Finished) -> None:
    """A role with few connections left can run it; sampled through a whole run with --metrics-port."""
    assert len(finished.most_sessions) <= 6, finished.most_sessions
    assert {"online-migrate work", "online-migrate lease", "online-migrate observe"} <= set(
        finished.most_sessions
    )


def test_run_executes_what_explain_prints(finished: Finished) -> None:
    """Each statement of stage constraints that explain showed before the run is found in the server's
    statistics after it.
    """
    printed = {" ".join(line.removesuffix(";").split()) for line in finished.explained.splitlines()}
    ddl = {line for line in printed if line.startswith("ALTER TABLE")}
    assert len(ddl) == 37 * (2 + 4)
    executed = {q.removesuffix(";") for q in finished.executed if "online_migrate_rehearsal" not in q}
    assert ddl <= executed, sorted(ddl - executed)[:3]
    unexplained = {q for q in executed if "ADD CONSTRAINT" in q or "VALIDATE" in q} - ddl
    assert not {q for q in unexplained if q.startswith("ALTER TABLE")}


def test_the_indexes_may_stand_above_the_backfill(finished: Finished) -> None:
    """The brief's order costs more WAL, which explain says, and ends in the same schema and the same rows."""
    assert finished.moved_end[0] == finished.end[0]
    assert finished.moved_end[1] == finished.end[1]


def test_a_plan_that_is_done_says_so_and_verifies_clean(done: Desk) -> None:
    """Called again it runs nothing; verify finds every step as promised; the journal is as it was."""
    before = done.ask("SELECT array_agg(r::text) FROM online_migrate.run r")
    said = done.call("run")
    assert said.code == 0
    assert said.out.startswith("plan multi_tenant is done since 20")
    assert done.ask("SELECT array_agg(r::text) FROM online_migrate.run r") == before
    said = done.call("verify")
    assert said.code == 0, said.all
    assert said.out == "313 finished steps checked: 313 match, 0 differ; 0 steps are not done yet\n"
    said = done.call("check")
    assert said.code == 0, said.all
    assert "not part of it when the run started" not in said.all


def test_verify_names_what_has_drifted(done: Desk) -> None:
    """An index dropped, a default put back, a unique that the ORM made again, a NULL allowed: each is named,
    exit 5.
    """
    done.run_sql(
        "DROP INDEX idx_tickets_bot_id",
        "ALTER TABLE users ALTER COLUMN bot_id SET DEFAULT 1",
        "CREATE UNIQUE INDEX ix_promocodes_code ON promocodes (code)",
        "ALTER TABLE transactions ALTER COLUMN bot_id DROP NOT NULL",
    )
    said = done.call("verify")
    assert said.code == 5
    for words in (
        (
            "index idx_tickets_bot_id on tickets was dropped, is invalid, or differs  [indexes: create_index"
            " idx_<table>_bot_id on tickets]"
        ),
        "users.bot_id has a default again, or was dropped  [swap: drop_default bot_id on users]",
        (
            "promocodes: a unique on exactly (code) exists: ix_promocodes_code  [swap: swap_unique code on"
            " promocodes]"
        ),
        "transactions.bot_id is not NOT NULL",
    ):
        assert words in said.out
    assert "error: the database differs from what finished steps of the plan promise" in said.err


def test_status_says_it_for_people_and_for_machines(done: Desk) -> None:
    """The shape of `status --json` is what monitoring scripts rely on."""
    said = done.call("status", "--json")
    assert said.code == 0
    status = json.loads(said.out)
    assert list(status) == ["plan", "state", "is_live", "reason", "pause", "approvals", "stages"]
    assert (status["plan"], status["state"]) == ("multi_tenant", "done")
    assert [s["stage"] for s in status["stages"]] == [
        "tables", "columns", "backfill", "indexes", "uniques", "constraints", "swap", "finish",
    ]  # fmt: skip
    for stage in status["stages"]:
        assert list(stage) == ["stage", "phase", "state", "steps"]
        assert stage["state"] == "done"
        for step in stage["steps"]:
            assert list(step) == ["step", "table", "state", "rows_done", "share_done", "eta_s", "reason"]
            assert step["state"] == "done"
    (users,) = (s for s in status["stages"][2]["steps"] if s["table"] == "users")
    assert users["rows_done"] == 400
    assert users["share_done"] == 1.0
    said = done.call("status")
    assert said.code == 0
    assert "multi_tenant" in said.out


def test_an_approval_that_comes_too_late_is_told(done: Desk) -> None:
    """Approving a finished stage is an error, and leaves no approval that no gate asks for."""
    said = done.call("approve", "swap")
    assert said.code == 2
    assert "error: stage swap has started: its gate was already passed" in said.err
