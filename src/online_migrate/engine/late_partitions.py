"""Partitions that are attached after a run has begun: found by every check, filled before the next stage."""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.engine.survey import Survey, leaves_now
from online_migrate.events import Note, StepReopened
from online_migrate.findings import Finding, Severity
from online_migrate.journal.lease import person
from online_migrate.journal.states import StepState
from online_migrate.operations.contract.effects import FillsColumn
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.expand import expand, root_in
from online_migrate.plan.model import Step
from online_migrate.run import RunContext

MANUAL = (
    "https://www.postgresql.org/docs/current/ddl-partitioning.html#DDL-PARTITIONING-DECLARATIVE-MAINTENANCE"
)


def take_late_partitions(run: RunContext) -> bool:
    """Give new partitions their steps in the journal, and drop the open steps of those that were
    detached or dropped; were there any?
    """
    journal, connection = run.journal, run.sessions.work
    frozen = journal.read_tables(run.run_id)
    now = leaves_now(connection, run.plan.schema)
    sets = {**frozen, **now}
    steps = expand(run.plan, sets, OPERATIONS)
    of_partitions = [s for s in steps if s.partition is not None]
    before = {s.key: s for s in steps_of(run) if s.partition is not None}
    if {s.key for s in of_partitions} == set(before):
        return False
    tables = {s.table for s in of_partitions} | {s.table for s in before.values()}
    kept = {n: t for n, t in frozen.items() if root_in(n) is None or root_in(n) not in tables}
    kept |= {n: t for n, t in now.items() if root_in(n) in tables}
    done = {r.key for r in journal.read_steps(run.run_id) if r.state is StepState.DONE}
    for step in of_partitions:
        if step.key in done and step.key not in before:  # it was detached: rows may have come meanwhile
            note = f"partition {step.partition} was attached again"
            journal.reopen_step(run.run_id, step.key, StepReopened(by=person(), note=note))
    journal.accept_plan(run.run_id, run.plan, kept, steps)
    came = dict.fromkeys(str(s.partition) for s in of_partitions if s.key not in before)
    left_out = dict.fromkeys(str(s.partition) for s in before.values() if s.key not in {t.key for t in steps})
    texts = [f"partitions that came since the run began, filled next: {', '.join(came)}"] * bool(came)
    texts += [f"partitions that were detached or dropped, left out: {', '.join(left_out)}"] * bool(left_out)
    run.emit(Note, message="; ".join(texts))
    return True


def steps_of(run: RunContext) -> tuple[Step, ...]:
    """The steps of the run, as its journal has fixed them; of a root without partitions, none."""
    none = dict.fromkeys(leaves_now(run.sessions.work, run.plan.schema), ())
    return expand(run.plan, {**none, **run.journal.read_tables(run.run_id)}, OPERATIONS)


def find_late_partitions(seen: Survey) -> Iterator[Finding]:
    """Partitions that the run has not seen when it began: the run fills them, unless the plan names
    partitions one by one.
    """
    if seen.journal is None or seen.run_id is None:
        return
    for name, before in seen.journal.read_tables(seen.run_id).items():
        root = root_in(name)
        late = [leaf for leaf in seen.sets.get(name, ()) if leaf not in before]
        if root is None or not late:
            continue
        names = ", ".join(late)
        fact = f"partitions of {root} came after the run had begun: {names}"
        if any(s.partition in late for s in seen.steps):
            yield Finding(
                severity=Severity.WARN,
                code="partition_came_later",
                fact=fact,
                remedy="none needed: the run fills them before its next stage",
                manual=MANUAL,
            )
        elif columns := _filled_by_name(seen, before):
            yield Finding(
                severity=Severity.STOP,
                code="partition_came_later",
                fact=f"{fact}; the plan fills {', '.join(columns)} in other partitions by name, not in these",
                remedy=f"name {names} in the plan as well, or {root} instead of its partitions, and run it"
                " with --accept-changed-plan",
                manual=MANUAL,
            )


def _filled_by_name(seen: Survey, leaves: tuple[str, ...]) -> list[str]:
    """The columns that the plan backfills in some of these partitions."""
    found = (
        c.effect.column
        for c in seen.effects.changes
        if isinstance(c.effect, FillsColumn) and c.effect.is_backfill and c.effect.table in leaves
    )
    return list(dict.fromkeys(found))
