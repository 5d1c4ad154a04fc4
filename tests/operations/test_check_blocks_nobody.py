"""`check` takes no lock above ACCESS SHARE on anything that exists, whatever the operation."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copy

import psycopg
import pytest
from psycopg import sql

from tests.desk import Desk, open_desk
from tests.operations.cases import CASES, Case

HERE = Path(__file__).parent


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_check_finds_the_same_where_every_other_lock_is_taken(
    case: Case, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application holds EXCLUSIVE on every table, idle in transaction: whatever is above ACCESS SHARE
    conflicts with it (manual, "Explicit Locking"), so it would time out or wait, and the findings would
    differ.
    """
    monkeypatch.chdir(tmp_path)
    copy(HERE / "harness.verify.sql", tmp_path)
    with (
        open_desk(shop, tmp_path, case.plan) as desk,
        psycopg.connect(shop, autocommit=True) as application,
        psycopg.connect(shop, autocommit=True) as other,
    ):
        desk.environ = {**desk.environ, **case.environ}
        application.execute((case.before or "SELECT 1").encode())
        alone = findings(desk)
        with application.transaction():
            tables = application.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p')"
                " AND relnamespace = 'public'::regnamespace"
            ).fetchall()
            for (table,) in tables:
                application.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(sql.SQL(table)))
            with pytest.raises(psycopg.errors.LockNotAvailable), other.transaction():  # the mode above ours
                other.execute("LOCK TABLE users IN ROW SHARE MODE NOWAIT")
            assert findings(desk) == alone


def findings(desk: Desk) -> tuple[int, list[tuple[str, str, str]]]:
    """What check says, but for the numbers that it measures; and its exit code."""
    said = desk.call("check", "--format", "json")
    found = json.loads(said.out)
    assert found
    return said.code, sorted((f["severity"], f["code"], f["step"]) for f in found)
