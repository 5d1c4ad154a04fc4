"""Partitions that are attached, detached or dropped while a step on their root is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Final

import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.operations import add_foreign_key, create_index, set_not_null
from online_migrate.operations.contract.base import Context, Statement
from online_migrate.operations.contract.state import State
from tests.operations.conftest import OpenSite
from tests.operations.site import Site, plan_of

TREE: Final = """
    CREATE TABLE bots (id int PRIMARY KEY); INSERT INTO bots VALUES (1);
    CREATE TABLE parcels (id int NOT NULL, bot_id int) PARTITION BY RANGE (id);
    CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (100);
    CREATE TABLE parcels_2 PARTITION OF parcels FOR VALUES FROM (100) TO (200);
    CREATE TABLE parcels_3 PARTITION OF parcels FOR VALUES FROM (200) TO (300);
    INSERT INTO parcels SELECT n, 1 FROM generate_series(1, 299) n;"""
INDEX: Final = "create_index: {table: parcels, name: idx_<table>_bot_id, columns: [bot_id]}"
KEY: Final = "add_foreign_key: {table: parcels, column: bot_id, references: bots.id, on_delete: cascade}"
NOT_NULL: Final = "set_not_null: {table: parcels, column: bot_id}"
DROPPED: Final = "ALTER TABLE parcels DETACH PARTITION parcels_1; DROP TABLE parcels_1"
ATTACHED: Final = """
    CREATE TABLE parcels_4 (LIKE parcels INCLUDING ALL);
    INSERT INTO parcels_4 SELECT n, 1 FROM generate_series(300, 399) n;
    ALTER TABLE parcels ATTACH PARTITION parcels_4 FOR VALUES FROM (300) TO (400)"""


def site_with(site_of: OpenSite, step: str) -> Site:
    site = site_of(plan_of(step))
    site.sql(TREE)
    return site


@contextmanager
def before_window(
    monkeypatch: pytest.MonkeyPatch, operation: ModuleType, word: str, act: Callable[[], object]
) -> Iterator[list[str]]:
    """``act`` once, when the operation is about to open a window with that word in a statement.  Gives the
    statements of its windows.
    """
    left, run_window, texts = [act], operation.run_window, list[str]()

    def act_before(context: Context, statements: Sequence[Statement]) -> None:
        texts.extend(s.text for s in statements)
        if left and any(word in s.text for s in statements):
            left.pop()()
        run_window(context, statements)

    with monkeypatch.context() as patch:
        patch.setattr(operation, "run_window", act_before)
        yield texts
    assert not left, f"no window with {word}"


@pytest.mark.parametrize("act", [DROPPED, ATTACHED], ids=["dropped", "attached"])
@pytest.mark.parametrize("word", ["ON ONLY", "idx_parcels_3_bot_id"])
def test_an_index(site_of: OpenSite, monkeypatch: pytest.MonkeyPatch, act: str, word: str) -> None:
    """Before the root's index is made, and before the first partition's is attached."""
    site = site_with(site_of, INDEX)
    with before_window(monkeypatch, create_index, word, lambda: site.sql(act)):
        site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])


def test_an_index_that_postgresql_keeps_invalid(site_of: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last partition is dropped when all others are attached: the error says what to drop."""
    site = site_with(site_of, INDEX)
    with (
        before_window(monkeypatch, create_index, "idx_parcels_1_bot_id", lambda: site.sql(DROPPED)),
        pytest.raises(VerificationFailed, match="keeps it invalid") as raised,
    ):
        site.execute()
    site.sql(raised.value.remedy.partition(": ")[2].partition(";")[0])
    site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])


def test_a_foreign_key_and_a_partition_that_comes(site_of: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a key of its own: the root's key would read its rows under a strong lock."""
    site = site_with(site_of, KEY)
    with before_window(monkeypatch, add_foreign_key, '"parcels_3" ', lambda: site.sql(ATTACHED)) as windows:
        site.execute()
    assert any('TABLE "public"."parcels_4" ' in text for text in windows), windows
    assert (site.state(), site.verify()) == (State.DONE, [])


@pytest.mark.parametrize("word", ['"parcels_1" ', '"parcels" '])
def test_a_foreign_key_and_a_partition_that_goes(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    site = site_with(site_of, KEY)
    gone = DROPPED.replace("parcels_1", "parcels_3")
    with before_window(monkeypatch, add_foreign_key, word, lambda: site.sql(gone)):
        site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])


@pytest.mark.parametrize("act", [DROPPED, ATTACHED], ids=["dropped", "attached"])
@pytest.mark.parametrize("word", ["NOT VALID", "SET NOT NULL"])
def test_not_null(site_of: OpenSite, monkeypatch: pytest.MonkeyPatch, act: str, word: str) -> None:
    site = site_with(site_of, NOT_NULL)
    with before_window(monkeypatch, set_not_null, word, lambda: site.sql(act)):
        site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])
