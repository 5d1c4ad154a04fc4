"""An operator with a plan of two stages, the second behind a gate, and a small table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import dropped_after
from tests.desk import Desk, open_desk
from tests.servers import TestServer

PLAN: Final = """plan: small
stages:
  - stage: columns
    steps:
      - add_column: {table: users, column: bot_id, type: integer, new_rows: 1}
      - backfill: {table: users, column: bot_id, value: 1}
  - stage: swap
    gate: {approval: every release writes bot_id}
    steps:
      - drop_default: {table: users, column: bot_id}
"""
TABLES: Final = (
    "CREATE TABLE users (id serial PRIMARY KEY, tg bigint NOT NULL UNIQUE)",
    "INSERT INTO users (tg) SELECT g FROM generate_series(1, 1000) g",
)


@pytest.fixture
def control(
    server: TestServer,
    new_database: Callable[[str | None], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUDO_USER", raising=False)
    name = new_database(None)
    with dropped_after(server, name) as dsn, open_desk(dsn, tmp_path, PLAN) as desk:
        desk.run_sql(*TABLES)
        yield desk


@pytest.fixture
def at_gate(control: Desk) -> Desk:
    """The plan's run waits at its gate."""
    assert control.call("run").code == 75
    return control
