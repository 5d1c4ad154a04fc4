"""Find the marked blocks of a document, and fill each with what the code says now.

A block begins with ``<!-- make docs: KIND ARGUMENT… -->`` and ends with ``<!-- end -->``.  The text around
blocks is written by people and stays as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docs.generate import ROOT, commands, errors, excerpts, findings, metrics, operations, packages, plan_keys

_BLOCK: Final = re.compile(r"(<!-- make docs: (?P<words>[^\n]*) -->\n).*?(<!-- end -->)", flags=re.DOTALL)

MAKERS: Final[Mapping[str, Callable[..., str]]] = {
    "commands": commands.all_commands,
    "exit-codes": errors.exit_codes,
    "findings": findings.all_codes,
    "lock-table": operations.lock_table,
    "metrics": metrics.all_metrics,
    "operations": operations.index,
    "operation": operations.part,
    "packages": packages.picture,
    "plan": plan_keys.all_models,
    "printed": excerpts.printed,
}


def documents() -> list[Path]:
    """Every document that may hold blocks."""
    return [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "plans" / "README.md"]


def filled(text: str) -> str:
    """The document with every block made again; raises KeyError for a block of an unknown kind."""
    page = text
    return _BLOCK.sub(lambda found: f"{found[1]}{_made(found['words'], page)}\n{found[3]}", text)


def _made(words: str, page: str) -> str:
    kind, *arguments = shlex.split(words)
    return MAKERS[kind](page, *arguments).strip("\n")
