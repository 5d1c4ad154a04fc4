"""Steps of one plan that contradict each other, found from their effects: no database is needed.

With a catalog it also finds steps that name a column that does not exist. Each finding names the lines of
both steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from online_migrate.engine.check.order_rules import ORDER_RULES
from online_migrate.engine.check.plot import Contradiction, Plot
from online_migrate.engine.check.swap_rules import SWAP_RULES
from online_migrate.engine.check.twice_rules import TWICE_RULES
from online_migrate.errors import PlanError, PlanErrors
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import PlanEffects
from online_migrate.postgres.catalog import Catalog

RULES = (*ORDER_RULES, *TWICE_RULES, *SWAP_RULES)
SHOWN_TABLES = 3
Key = tuple[str, str, str]


def find_contradictions(
    effects: PlanEffects, catalog: Catalog | None = None, *, done: Iterable[Key] = ()
) -> list[Contradiction]:
    """All of them, in the order of the plan; a step that is ``done`` contradicts nothing any more."""
    plot, over = Plot(effects, catalog), frozenset(done)
    return [
        found
        for change in effects.changes
        if change.step.key not in over
        for rule in RULES
        for found in rule(plot, change)
        if not (found.is_moot_once_done and found.other is not None and found.other.key in over)
    ]


def findings_of(contradictions: Iterable[Contradiction]) -> list[Finding]:
    """One finding for each pair of lines of the plan: over a table set they differ in the table only."""
    lines: dict[tuple[object, ...], list[Contradiction]] = {}
    for c in contradictions:
        other = None if c.other is None else id(c.other.spec)
        lines.setdefault((c.code, id(c.step.spec), other, c.fact), []).append(c)
    return [_finding(same) for same in lines.values()]


def ensure_no_contradiction(
    effects: PlanEffects, catalog: Catalog | None = None, *, done: Iterable[Key] = ()
) -> None:
    """Raises :class:`PlanError`, or :class:`PlanErrors` for several, where steps of the plan contradict each
    other.

    What only the catalog shows of a single step is a finding of `check`.
    """
    found = find_contradictions(effects, catalog, done=done)
    stops = [c for c in found if c.severity is Severity.STOP and (c.other is not None or catalog is None)]
    errors = [PlanError(f.fact, remedy=f.remedy) for f in findings_of(stops)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise PlanErrors(errors)


def _finding(same: list[Contradiction]) -> Finding:
    first = same[0]
    names = list(dict.fromkeys(c.table for c in same))
    tables = ", ".join(names[:SHOWN_TABLES])
    if len(names) > SHOWN_TABLES:
        tables += f" and {len(names) - SHOWN_TABLES} more"
    return Finding(
        severity=first.severity,
        code=first.code,
        fact=f"{first.step.spec.where}: {first.step.spec.title}: {first.fact.replace('{tables}', tables)}",
        remedy=first.remedy,
        step=f"{first.step.stage}: {first.step.spec.title}",
        table=names[0] if len(names) == 1 else "",
    )
