"""``python -m docs.generate``: write everything that is made from the code; ``make docs`` calls it."""

from __future__ import annotations

from pathlib import Path

from docs.generate import ROOT
from docs.generate.blocks import documents, filled
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.json_schema import schema_text


def main() -> None:
    """Write each document whose blocks are not current, and the JSON Schema; say which files changed."""
    for path in documents():
        _write(path, filled(path.read_text(encoding="utf-8")))
    _write(ROOT / "docs" / "plan.schema.json", schema_text(OPERATIONS))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


main()
