"""Finished steps that a changed plan defines otherwise or no longer has: what is done stays what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from online_migrate.engine.survey import Survey
from online_migrate.errors import PlanChanged
from online_migrate.findings import Finding, Severity
from online_migrate.journal.records import StepRecord
from online_migrate.journal.store import Key
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import step_part

_MAKES_NOTHING: Final = frozenset({"analyze", *(n for n, o in OPERATIONS.items() if o.only_verifies)})
"""operations that leave nothing behind: a plan may lose such a step"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedStep:
    """A finished step, and how the plan has changed it."""

    key: Key
    step: str
    how: str
    remedy: str


def find_changed_steps(seen: Survey) -> tuple[ChangedStep, ...]:
    """Finished steps that the plan now defines otherwise, or no longer has although their table exists."""
    if seen.run is None or seen.journal is None or seen.run.fingerprint == seen.plan.fingerprint():
        return ()
    records = [r for r in seen.journal.read_steps(seen.run.run_id) if r.key in seen.done]
    return tuple(_changed(seen, records))


def changed_step_findings(seen: Survey) -> list[Finding]:
    """The same as findings of a check."""
    return [
        Finding(
            severity=Severity.STOP,
            code="finished_step_changed",
            fact=f"{found.step} is done, and {found.how}",
            remedy=f"restore it in the plan; or {found.remedy}",
        )
        for found in find_changed_steps(seen)
    ]


def ensure_no_changed_step(seen: Survey) -> None:
    """Raise :class:`PlanChanged` with what would have to happen."""
    found = find_changed_steps(seen)
    if found:
        raise PlanChanged(
            tuple(f"{c.step} is done, and {c.how}" for c in found),
            remedy="restore these steps in the plan, then run the same command again; or, for each of them:"
            + "".join(f"\n  {line}" for line in dict.fromkeys(c.remedy for c in found)),
        )


def _changed(seen: Survey, records: list[StepRecord]) -> Iterator[ChangedStep]:
    assert seen.run is not None  # the caller has seen to it
    before, now = seen.run.parts, seen.plan.parts()
    keys = {step.key for step in seen.steps}
    for record in records:
        part, name = step_part(record.stage, record.step), _name(record)
        if part in now and part in before and now[part] != before[part]:
            how, remedy = "the plan now defines it otherwise", _redo(seen, record)
            yield ChangedStep(key=record.key, step=name, how=how, remedy=remedy)
        elif part in before and record.key not in keys and _leaves_something(seen, record):
            how = "the plan no longer has it"
            yield ChangedStep(key=record.key, step=name, how=how, remedy=_undo(record))
    if records and before.get("schema") != now["schema"]:
        how = f"the plan now works in schema {seen.plan.schema}"
        first, remedy = records[0], "write another plan for that schema"
        yield ChangedStep(key=first.key, step=_name(first), how=how, remedy=remedy)


def _leaves_something(seen: Survey, record: StepRecord) -> bool:
    """Did the step make something?  A table that was taken out of its set earlier does not count."""
    assert seen.run is not None
    assert seen.journal is not None  # the caller has seen to it
    if record.step.split(" ")[0] in _MAKES_NOTHING:
        return False
    if not record.table:
        return True
    is_in_plan = step_part(record.stage, record.step) in seen.plan.parts()
    frozen = {t for tables in seen.journal.read_tables(seen.run.run_id).values() for t in tables}
    return seen.catalog.table(record.table) is not None and (not is_in_plan or record.table in frozen)


def _name(record: StepRecord) -> str:
    return " / ".join(part for part in record.key if part)


def _redo(seen: Survey, record: StepRecord) -> str:
    table = f" --table {record.table}" if record.table else ""
    return (
        f"change what it made yourself, then `online-migrate redo {seen.plan.path} '{record.step}'"
        f" --stage {record.stage}{table}` and run with --accept-changed-plan"
    )


def _undo(record: StepRecord) -> str:
    return (
        f"undo what it made yourself, then `online-migrate redo` '{record.step}' with the plan as it was,"
        " and run the new plan with --accept-changed-plan"
    )
