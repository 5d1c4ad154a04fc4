"""Which locks a plan takes: steps × relations × lock × how long × what waits behind it, from what the
operations declare.

The same declarations that a lock window compares with pg_locks before it commits: what is listed here is what
run holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from online_migrate.engine.explain import ExplainedStep, Explanation
from online_migrate.operations.contract.base import Statement
from online_migrate.postgres.locks import LockMode

MANUAL = "https://www.postgresql.org/docs/current/"
_PAGES = (
    (r"CREATE (?:UNIQUE )?INDEX", "sql-createindex.html"),
    (r"ALTER TABLE", "sql-altertable.html"),
    (r"CREATE TABLE", "sql-createtable.html"),
    (r"(?:DROP INDEX|-- drops)", "sql-dropindex.html"),
    (r"ANALYZE", "sql-analyze.html"),
    (r"GRANT", "sql-grant.html"),
)
_LOCKS_PAGE = "explicit-locking.html"
TABLE = "<table>"
"""stands for the table of a step that is named over a set"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockLine:
    """One lock of one step; over a table set one line stands for all its tables."""

    stage: str
    step: str
    tables: tuple[str, ...]
    """of the step; those that it is named over"""
    statement: str
    """its first words: ``ALTER TABLE … VALIDATE CONSTRAINT``"""
    relations: tuple[str, ...]
    """with ``<table>`` where each table of the step is meant"""
    mode: LockMode
    is_long: bool
    manual: str

    @property
    def waits_behind(self) -> str:
        return self.mode.waits_behind

    @property
    def how_long(self) -> str:
        return "for a scan" if self.is_long else "instant"


def lock_lines(explanation: Explanation) -> tuple[LockLine, ...]:
    """Every lock that a step declares, in the plan's order; what takes no more than any statement of the
    application has no line.
    """
    lines: list[LockLine] = []
    for _, members in groupby(explanation.steps, key=lambda s: (s.stage, s.step)):
        lines += _step_lines(list(members))
    return tuple(lines)


def _step_lines(steps: list[ExplainedStep]) -> Iterator[LockLine]:
    found: dict[tuple[str, LockMode, bool], dict[str, None]] = {}
    pages: dict[str, str] = {}
    for step in steps:
        for statement in step.statements:
            words = _first_words(statement)
            for need in statement.locks:
                name = TABLE if need.name == step.table and len(steps) > 1 else need.relation
                found.setdefault((words, need.mode, need.is_long), {})[name] = None
                pages[words] = _page(statement)
    for (words, mode, is_long), relations in found.items():
        yield LockLine(
            stage=steps[0].stage,
            step=steps[0].step,
            tables=tuple(s.table for s in steps if s.table),
            statement=words,
            relations=tuple(relations),
            mode=mode,
            is_long=is_long,
            manual=MANUAL + pages[words],
        )


def _page(statement: Statement) -> str:
    return next((page for pattern, page in _PAGES if re.match(pattern, statement.text)), _LOCKS_PAGE)


def _first_words(statement: Statement) -> str:
    """What is done, without names: the verbs of the statement."""
    text = re.sub(r'"(?:[^"]|"")*"(?:\."(?:[^"]|"")*")*|\([^()]*\)', "…", statement.text.split("\n")[0])
    if text.startswith("--"):
        return "DROP INDEX, or ALTER TABLE … DROP CONSTRAINT"
    found = re.match(
        r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY|CREATE (?:UNIQUE )?INDEX|CREATE TABLE|DROP INDEX|ANALYZE"
        r"|ALTER INDEX … ATTACH PARTITION"
        r"|GRANT"
        r"|ALTER TABLE … (?:ADD COLUMN|ALTER COLUMN … (?:SET NOT NULL|DROP NOT NULL|SET DEFAULT|DROP DEFAULT)"
        r"|VALIDATE CONSTRAINT|DROP CONSTRAINT"
        r"|ADD CONSTRAINT … (?:CHECK|FOREIGN KEY|UNIQUE|PRIMARY KEY)|OWNER TO)",
        text,
    )
    words = found[0] if found else " ".join(text.split()[:3])
    return f"{words} NOT VALID" if text.endswith("NOT VALID") else words
