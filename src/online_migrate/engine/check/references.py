"""References to a column that the row will not have, found before the stage that would stumble over it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from online_migrate.engine.survey import Survey
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.effects import CreatesTable, MakesRow
from online_migrate.plan.model import Step

_REFERENCE = re.compile(r"<([a-z][a-z0-9_]*)\.([a-z_][a-z0-9_]*)>")


def check_references(seen: Survey) -> Iterator[Finding]:
    """A finding for each reference such as ``<master.ids>`` that no row can answer."""
    made = (c.effect for c in seen.effects.changes)
    rows = {e.row: e.table for e in made if isinstance(e, MakesRow)}
    reported: set[str] = set()
    for step in seen.steps:
        for name, column in _REFERENCE.findall(step.spec.params.model_dump_json()):
            columns = _columns(seen, rows[name]) if name in rows else ()
            if columns and column not in columns and f"{name}.{column}" not in reported:
                reported.add(f"{name}.{column}")
                yield _finding(step, name, column, rows[name], columns)


def _finding(step: Step, name: str, column: str, table: str, columns: tuple[str, ...]) -> Finding:
    near = difflib.get_close_matches(column, columns, n=1)
    meant = f"; did you mean <{name}.{near[0]}>?" if near else ""
    return Finding(
        severity=Severity.STOP,
        code="unknown_reference",
        fact=f"<{name}.{column}> is unknown: {column} is no key column of {table}",
        remedy=f"correct {step.spec.where}{meant}",
    )


def _columns(seen: Survey, table: str) -> tuple[str, ...]:
    """The primary key's columns; of a table that the plan makes, all columns of its DDL."""
    there = seen.catalog.table(table)
    if there is not None:
        return next((c.columns for c in there.constraints if c.kind == "p"), ())
    made = (c.effect for c in seen.effects.on(table))
    return next((e.columns for e in made if isinstance(e, CreatesTable)), ())
