"""online-migrate locks: what it prints is what operations declare, and the
documentation has it word by word.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from online_migrate.cli import main
from online_migrate.engine.explain import explain
from online_migrate.engine.lock_table import lock_lines
from online_migrate.events import LockAttemptFailed, LockHeld
from online_migrate.observe.terminal.lock_summary import LockSummary
from online_migrate.operations.contract.base import Kind
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.load import load_file

ROOT = Path(__file__).parents[2]
PLAN = str(ROOT / "plans" / "multi_tenant.yaml")
MARKED = re.compile(
    r"(<!-- make docs: lock-table plans/multi_tenant.yaml -->\n).*?(<!-- end -->)", flags=re.DOTALL
)


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ONLINE_MIGRATE_DSN", "PGHOST", "PGDATABASE", "PGSERVICE", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["locks", PLAN, *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_plans_table_is_current() -> None:
    """Between the marks, plans/README.md has what `locks --format markdown` prints."""
    text = (ROOT / "plans" / "README.md").read_text(encoding="utf-8")
    assert MARKED.search(text)
    current = MARKED.sub(lambda m: m[1] + printed("--format", "markdown") + m[2], text)
    assert text == current, "run `make docs`"


def test_no_step_holds_a_strong_lock_for_a_scan() -> None:
    """Whatever the application waits behind is instant, in the whole plan."""
    explanation = explain(load_file(Path(PLAN), OPERATIONS), None)
    scans = [s for step in explanation.steps for s in step.statements if s.kind is not Kind.WINDOW]
    assert [need for s in scans for need in s.locks if need.mode.is_strong] == []
    assert all(not line.is_long for line in lock_lines(explanation) if line.mode.is_strong)


def test_every_line_has_the_manuals_page() -> None:
    """An operator can read on: each statement leads to its page, none to a general one."""
    lines = json.loads(printed("--format", "json"))
    assert {line["manual"].rpartition("/")[2] for line in lines} == {
        "sql-altertable.html",
        "sql-analyze.html",
        "sql-createindex.html",
        "sql-createtable.html",
        "sql-dropindex.html",
    }


def test_with_a_database_the_real_names_are_told(shop: str) -> None:
    """The indexes that a swap drops, and the tables that only the database knows, are named."""
    swap = printed("--dsn", shop, "--stage", "swap")
    assert "ix_users_telegram_id" in swap
    assert "37 tables" in swap


def test_only_a_stage() -> None:
    """--stage leaves the others out."""
    text = printed("--stage", "columns")
    assert "stage columns" in text
    assert "stage swap" not in text
    assert "waits behind it: reads and writes" in text


def test_a_runs_last_words() -> None:
    """Run ends with what was observed: windows, holds, waits and tries, by step."""
    summary = LockSummary()
    assert list(summary.lines()) == []
    for held_s in (0.002, 0.004, 0.030):
        summary.emit(
            LockHeld(
                stage="swap",
                step="drop_default bot_id",
                relation="public.users",
                lock="ACCESS EXCLUSIVE",
                attempts=1,
                waited_s=0.001,
                held_s=held_s,
                locks=("ACCESS EXCLUSIVE on public.users",),
            )
        )
    summary.emit(
        LockAttemptFailed(
            stage="swap",
            step="drop_default bot_id",
            relation="public.users",
            lock="ACCESS EXCLUSIVE",
            attempt=1,
            waited_s=0.05,
            pause_s=0.1,
            reason="timeout",
        )
    )
    first, _, line = summary.lines()
    assert first == (
        "3 lock windows: held 4.0 ms (median), 30.0 ms (99th percentile), 30.0 ms at most (ACCESS EXCLUSIVE"
        " on public.users);"
        " 1 failed lock attempt"
    )
    assert line.split() == ["swap", "/", "drop_default", "bot_id", "3", "4", "30.0", "ms", "50.0", "ms"]
