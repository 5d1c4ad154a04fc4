"""An operator with a small plan and the filled shop, and where an undisturbed run of that plan ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import dropped_after
from tests.desk import Desk, open_desk, small_text
from tests.servers import TestServer


@pytest.fixture
def desk(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """The small plan on this test's copy of the shop."""
    monkeypatch.chdir(tmp_path)
    with open_desk(shop, tmp_path, small_text()) as desk:
        yield desk


@pytest.fixture(scope="session")
def undisturbed(
    server: TestServer,
    new_database: Callable[[str | None], str],
    shop_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, dict[str, str]]:
    """Schema and rows where the small plan ends when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with (
        dropped_after(server, new_database(shop_template)) as dsn,
        open_desk(dsn, folder, small_text()) as desk,
    ):
        child = desk.start("--approve", "swap")
        assert child.wait() == 0, child.said
        return desk.end()
