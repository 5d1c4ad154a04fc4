"""verify: compare the database with what the finished steps promise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from online_migrate.engine.drift import verify_step
from online_migrate.engine.survey import survey
from online_migrate.errors import UsageError
from online_migrate.findings import Finding
from online_migrate.journal.states import RunState
from online_migrate.plan.model import Plan, Step
from online_migrate.postgres.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    verified: int
    """finished steps that were checked"""
    broken: int
    """how many of these differ from what the step promises"""
    open: tuple[Step, ...]
    """steps that the journal does not have as done"""
    is_run_done: bool
    """the journal has the run as done; then no step may be open"""
    findings: tuple[Finding, ...]


def verify(plan: Plan, connection: Connection) -> Verified:
    """Check every step that the journal has as done; the others are counted as open."""
    seen = survey(plan, connection)
    if seen.run_id is None:
        raise UsageError(
            f"there is no run of plan {plan.name} in database {connection.info.dbname}",
            remedy=f"start one: online-migrate run {plan.path}",
        )
    findings: list[Finding] = []
    broken = 0
    done = [s for s in seen.steps if s.key in seen.done]
    for step in done:
        found = verify_step(seen.place(step))
        broken += bool(found)
        findings += [replace(f, step=f"{step.stage}: {step.spec.title}", table=step.key[2]) for f in found]
    return Verified(
        verified=len(done),
        broken=broken,
        open=tuple(s for s in seen.steps if s.key not in seen.done),
        is_run_done=seen.run is not None and seen.run.state is RunState.DONE,
        findings=tuple(findings),
    )
