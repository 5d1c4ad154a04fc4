"""What the documentation has from the code is what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import ROOT
from docs.generate.blocks import documents, filled
from online_migrate.operations.registry import OPERATIONS


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_generated_blocks_of_a_page_are_current(path: Path) -> None:
    """Parameters, SQL, locks, options, metrics and exit codes never fall behind the code: `make docs` changes
    nothing.
    """
    text = path.read_text(encoding="utf-8")
    assert filled(text) == text, "run `make docs`, then read what changed"


def test_every_operation_has_its_page_with_every_part() -> None:
    """A new operation cannot come without its page."""
    for name in OPERATIONS:
        page = (ROOT / "docs" / "operations" / f"{name}.md").read_text(encoding="utf-8")
        for part in ("summary", "what", "parameters", "sql", "effects", "locks", "crash", "rollback"):
            assert f"<!-- make docs: operation {name} {part} -->" in page
        for title in ("Example", "What check verifies", "After a crash", "Rollback"):
            assert f"\n## {title}\n" in page, f"{name}: {title}"


def test_an_old_block_is_made_again_and_the_text_around_it_stays() -> None:
    """`make docs` writes between its marks only."""
    page = "before\n<!-- make docs: exit-codes -->\nold\n<!-- end -->\nafter"
    made = filled(page)
    assert made.startswith("before\n<!-- make docs: exit-codes -->\n| exit code |")
    assert made.endswith("\n<!-- end -->\nafter")
    assert "\nold\n" not in made
    assert filled(made) == made
