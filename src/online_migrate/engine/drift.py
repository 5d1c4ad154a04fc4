"""Drift: what finished steps made and another session has changed since.  Reads the catalog, never the rows.

Found at each start and before each gate, so that no step relies on what was dropped.  `verify` scans rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from shlex import quote
from typing import Final

from online_migrate.discovery.schema_changes import SchemaChanges
from online_migrate.engine.changed_steps import find_changed_steps
from online_migrate.engine.lock_retry import naming_blockers
from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import AddsForeignKey, CreatesIndex
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Step
from online_migrate.postgres.rehearsal import TrialFailed

DRIFT: Final = "drift"
"""the code of each finding"""


def find_drift(seen: Survey) -> list[Finding]:
    """A finding for each finished step whose object is not as the step made it, with the command for it.

    Raises :class:`LockNotAcquired` where another session locks a table, with who locks it.
    """
    done = list(_comparable(seen))
    if not done:
        return []
    connection = seen.catalog.connection
    with naming_blockers(connection, seen.plan.schema):
        seen.catalog.prefetch({s.table for s in done if s.table is not None})
        found = [(step, problem) for step in done for problem in _verify(seen.place(step))]
        if not found:
            return []
        changes = SchemaChanges(connection, [text for step in done for text in _statements(seen.place(step))])
    return [_finding(seen, step, problem, changes) for step, problem in found]


def _comparable(seen: Survey) -> Iterator[Step]:
    """Finished steps, but those that may build on an open step of the same table, after `redo`."""
    changed = {found.key for found in find_changed_steps(seen)}  # compared with another plan, all differ
    open_tables: set[str | None] = set()
    for step in seen.steps:
        if step.key not in seen.done:
            open_tables.add(step.table)
        elif step.table not in open_tables and step.key not in changed:
            yield step


def verify_step(place: Place) -> list[Finding]:
    """What the operation finds different, or that the server refuses what it needs for the comparison."""
    try:
        return OPERATIONS[place.step.spec.operation].verify(place, place.step.spec.params)
    except TrialFailed as error:
        fact = f"{place.step}: the comparison is refused: {error}"
        return [Finding(severity=Severity.STOP, code=DRIFT, fact=fact, remedy="restore what it names")]


def redo_command(seen: Survey, step: Step) -> str:
    """The command that reopens the step."""
    table = "" if step.table is None else f" --table {quote(step.key[2])}"
    title = quote(step.spec.title)
    return f"online-migrate redo {seen.plan.path} {title} --stage {quote(step.stage)}{table}"


def fact_lines(findings: Iterable[Finding]) -> str:
    """The findings as lines of an error."""
    return "\n".join(f"  - {f.fact}\n    → {f.remedy}" for f in findings)


def _verify(place: Place) -> list[Finding]:
    """Only by the catalog; that a table of the database was dropped is a finding of every check."""
    step = place.step
    is_dropped = step.table is not None and place.known.table(step.table) is None and not place.creates_table
    if is_dropped or not OPERATIONS[step.spec.operation].is_verified_at_once:
        return []
    return verify_step(place)


def _statements(place: Place) -> Iterator[str]:
    try:
        for statement in OPERATIONS[place.step.spec.operation].statements(place, place.step.spec.params):
            yield statement.text
    except TrialFailed:
        return


def _finding(seen: Survey, step: Step, problem: Finding, changes: SchemaChanges) -> Finding:
    named = [e.name for e in seen.effects.of(step) if isinstance(e, CreatesIndex | AddsForeignKey)]
    maker = changes.describe([n for n in (step.table, *named) if n])
    fact = f"{step} is done, but {problem.fact}{f'; {maker}' if maker else ''}"
    return replace(
        problem,
        code=DRIFT,
        fact=fact,
        remedy=f"repair it with the plan: {redo_command(seen, step)}; or restore it yourself",
        step=f"{step.stage}: {step.spec.title}",
        table=step.key[2],
    )
