"""The main job from end to end, by the command line in a process of its own, as the demo and an operator run
it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psycopg
import pytest
from psycopg import sql

from online_migrate.demo.dump import DIFFERS_BY_RUN, rows_digest, schema_dump
from online_migrate.demo.operate import DemoFailed, Kill, Operator, carry_out, draw_kills
from online_migrate.demo.report import Locks, Report, format_bytes
from online_migrate.demo.show import PERIODS, DemoOptions, find_plan, read_tokens, run_demo
from online_migrate.errors import UsageError
from tests.servers import TestServer

pytestmark = pytest.mark.timeout(1200)  # four whole runs side by side on a machine that may be busy

STAGES = ("tables", "columns", "backfill", "indexes", "uniques", "constraints", "swap", "finish")
STEPS = {
    "tables": 8,
    "columns": 30,
    "backfill": 30,
    "indexes": 30,
    "uniques": 5,
    "constraints": 60,
    "swap": 63,
    "finish": 31,
}
SEEDS = (1, 2, 3)
SMALL_PLAN = """
plan: small
stages:
  - stage: only
    steps:
      - analyze: {table: users}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a run went and where it ended."""

    kills: tuple[Kill, ...]
    took_place: tuple[Kill, ...]
    schema: str
    rows: dict[str, str]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, list[str], set[str]]:
    """One demo, its report as a file, what it said, and the plans it ticked for."""
    out = tmp_path_factory.mktemp("demo") / "demo-report.json"
    said: list[str] = []
    ticks: set[str] = set()
    wishes = DemoOptions(users=100, before_s=1.0, after_s=2.0)
    report = run_demo(wishes, out=out, on_tick=lambda _, plan: ticks.add(plan), say=said.append)
    return report, out, said, ticks


@pytest.fixture(scope="module")
def ends(
    server: TestServer,
    new_database: Callable[[str | None], str],
    shop_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int | None, Run]:
    """The plan run on a copy of the shop for each seed, and for None undisturbed; all at once, for the time
    it takes.
    """
    names = {seed: new_database(shop_template) for seed in (None, *SEEDS)}

    def run(seed: int | None) -> Run:
        dsn = server.dsn_for(names[seed])
        kills = () if seed is None else draw_kills(STEPS, Random(seed))
        operator = operator_of(dsn, tmp_path_factory.mktemp("run"))
        took_place = carry_out(operator, at_gate=lambda _: None, kills=kills)
        with psycopg.connect(dsn, autocommit=True) as connection:
            rows = rows_digest(connection, leave_out=DIFFERS_BY_RUN)
            return Run(kills=kills, took_place=took_place, schema=schema_dump(connection), rows=rows)

    with ThreadPoolExecutor() as pool:
        runs = dict(zip(names, pool.map(run, names), strict=True))
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name in names.values():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
    return runs


def operator_of(dsn: str, folder: Path) -> Operator:
    return Operator(dsn=dsn, plan=find_plan(None), folder=folder, secrets={"MASTER_BOT_TOKEN": "1:made-up"})


def test_demo_keeps_every_promise(shown: tuple[Report, Path, list[str], set[str]]) -> None:
    """The whole plan beside the application: no transaction fails, every check holds, in all three periods it
    worked.
    """
    report, _, said, ticks = shown
    assert report.failures == ()
    assert [c for c in report.checks if not c.ok] == []
    assert report.ok
    assert len(report.checks) == 18
    assert [p for p in PERIODS if report.transactions[p].transactions < 30] == []
    assert report.plan_invalidations == 1  # the one ADD COLUMN on users
    assert tuple(report.stages) == STAGES
    assert sum("gate of swap" in sentence for sentence in said) == 1
    assert ticks == {"multi_tenant"}


def test_report_says_what_was_measured(shown: tuple[Report, Path, list[str], set[str]]) -> None:
    """demo-report.json has what others read from it, and the screen says the same."""
    report, out, _, _ = shown
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["plan"] == "multi_tenant"
    assert record["failed_transactions"] == 0
    assert all(check["ok"] for check in record["checks"])
    assert set(record["transactions"]) == set(PERIODS)
    assert set(record["transactions"]["during"]) == {"count", "failures", "p50_ms", "p99_ms", "longest_ms"}
    assert record["locks"]["windows"] > 100
    assert 0 < record["locks"]["longest_hold_ms"] <= record["locks"]["longest_application_wait_ms"]
    assert record["wal_bytes"] > 1_000_000
    assert set(record["growth"]) == {"tables_before", "tables_after", "indexes_before", "indexes_after"}
    assert record["interrupted"] == []
    lines = "\n".join(report.lines())
    assert "No transaction failed and every check holds." in lines
    assert f"{report.transactions['during'].transactions:,}" in lines


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_in_every_stage_the_end_is_the_same(ends: dict[int | None, Run], seed: int) -> None:
    """SIGKILL once in each of the eight stages, run again each time: the same schema and rows as without."""
    killed, undisturbed = ends[seed], ends[None]
    assert killed.took_place == killed.kills
    assert tuple(kill.stage for kill in killed.kills) == STAGES
    assert killed.schema.splitlines() == undisturbed.schema.splitlines()
    assert killed.rows == undisturbed.rows


def test_kills_are_drawn_by_their_seed() -> None:
    """The same seed kills at the same statements, another one elsewhere, each within its stage."""
    one, same, other = (draw_kills(STEPS, Random(seed)) for seed in (7, 7, 8))
    assert one == same != other
    assert [kill.stage for kill in one] == list(STAGES)
    assert all(1 <= kill.statements <= 8 * STEPS[kill.stage] for kill in one)
    assert [Kill.parse(str(kill)) for kill in one] == list(one)


def test_a_run_that_fails_says_so(shop: str, tmp_path: Path) -> None:
    """A runner that ends otherwise than it should ends the demo, with the runner's last words."""
    operator = Operator(dsn=shop, plan=find_plan(None), folder=tmp_path, secrets={"MASTER_BOT_TOKEN": ""})
    with pytest.raises(DemoFailed, match="MASTER_BOT_TOKEN"):
        carry_out(operator, at_gate=lambda _: None)


def test_a_kill_that_does_not_come_is_no_success(shop: str, tmp_path: Path) -> None:
    """Where a stage ends before its kill, nothing was proven, and the demo says so."""
    plan = tmp_path / "small.yaml"
    plan.write_text(SMALL_PLAN)
    operator = Operator(dsn=shop, plan=plan, folder=tmp_path, secrets={})
    with pytest.raises(DemoFailed, match="only ended before 9999 statements"):
        carry_out(operator, at_gate=lambda _: None, kills=[Kill(stage="only", statements=9999)])


def test_a_plan_that_is_not_there_is_named() -> None:
    """--plan with a wrong path says which, and what to do."""
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        find_plan(Path("nowhere.yaml"))


def test_tokens_are_found_where_the_runner_puts_them(tmp_path: Path) -> None:
    """Files that end in .secret are tokens, wherever the runner writes them below its folder."""
    for name, mode in (("run.log", 0o600), ("a.secret", 0o600), ("plan.yaml", 0o644)):
        (tmp_path / name).write_text(f"{name}\n")
        (tmp_path / name).chmod(mode)
    assert read_tokens(tmp_path) == ("a.secret",)


def test_locks_of_no_history_are_none() -> None:
    """A run without lock windows has zeros, no error."""
    assert Locks.of(()) == Locks()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 kB"), (12_345_678, "11.8 MB"), (5 << 40, "5.0 TB")],
)
def test_bytes_are_readable(size: int, text: str) -> None:
    """Sizes are said in the unit that fits, by powers of 1024 as PostgreSQL does."""
    assert format_bytes(size) == text
