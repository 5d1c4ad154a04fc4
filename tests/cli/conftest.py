"""An operator with a small plan and the filled shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desk import Desk, open_desk, small_text


@pytest.fixture
def desk(shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """The small plan on this test's copy of the shop."""
    monkeypatch.chdir(tmp_path)
    with open_desk(shop, tmp_path, small_text()) as desk:
        yield desk
