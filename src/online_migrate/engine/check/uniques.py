"""Uniques that refuse a second owner's row: each is swapped by the plan, named in it as global, or asked
about.
"""

from __future__ import annotations

from collections.abc import Iterator

from online_migrate.discovery.uniques import Unique, read_uniques
from online_migrate.engine.survey import Survey
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.effects import AddsColumn, Change, EndsUnique
from online_migrate.operations.schema_before import Schema
from online_migrate.postgres.catalog import TableInfo

MANUAL = "https://www.postgresql.org/docs/current/indexes-unique.html"
ASKED = (
    "if two owners may have the same value: build one per owner (create_index) and swap this one (swap_unique"
    ", by `from` or `index`); if they may not: name it under `stays_global` of the plan, with the reason"
)


def check_uniques(seen: Survey) -> list[Finding]:
    """Of a plan that swaps a unique: everything else on its tables that can refuse a second owner's row."""
    swaps = [c for c in seen.effects.changes if isinstance(c.effect, EndsUnique)]
    named = {entry.index: entry.reason for entry in seen.plan.stays_global}
    if not swaps and not named:
        return []
    members = {t for tables in seen.sets.values() for t in tables} | {c.effect.table for c in swaps}
    tables = [t for t in map(seen.catalog.table, sorted(members)) if t is not None and t.kind in "rp"]
    found = read_uniques(seen.catalog.connection, [t.oid for t in tables])
    owners = _owners(seen, swaps)
    by_oid = {t.oid: t for t in tables}
    left = [u for u in found if _refuses(seen, by_oid[u.root], u, owners, members)]
    asked = [u for u in left if u.name not in named]
    return [
        *_left_by_a_swap(swaps, asked),
        *_asked(asked),
        *_declared({u.name: u for u in left}, {u.name for u in found}, named),
    ]


def _owners(seen: Survey, swaps: list[Change]) -> set[str]:
    """The columns that name an owner: those that the new uniques have besides the old ones' columns."""
    owners = {c.effect.column for c in seen.effects.changes if isinstance(c.effect, AddsColumn)}
    for change in swaps:
        effect = change.effect
        assert isinstance(effect, EndsUnique)
        table = Schema(seen.effects, seen.catalog, change.number).table(effect.table)
        index = None if table is None else table.indexes.get(effect.successor)
        old = None if table is None else table.indexes.get(effect.index)
        if index is not None:
            owners |= {c for c in index.columns if c is not None} - set(effect.columns)
            owners -= set() if old is None else {c for c in old.columns if c is not None}
    return owners


def _refuses(seen: Survey, table: TableInfo, unique: Unique, owners: set[str], members: set[str]) -> bool:
    """Can it refuse a row of a second owner once the plan is done?

    Not one that compares the owner, or a foreign key to the set's own rows: these have one owner each.
    """
    own_keys = {c for k in table.foreign_keys if k.ref_table in members for c in k.columns}
    if unique.has_made_key or (owners | own_keys) & unique.compared:
        return False
    if unique.schema != table.schema:  # a partition of another schema, which no step changes
        return True
    then = Schema(seen.effects, seen.catalog, len(seen.steps)).table(unique.table)
    return then is None or unique.name in then.indexes


def _left_by_a_swap(swaps: list[Change], left: list[Unique]) -> Iterator[Finding]:
    """A swap ends the whole uniques on exactly its columns; others that compare these stay."""
    for change in swaps:
        effect = change.effect
        assert isinstance(effect, EndsUnique)
        columns = set(effect.columns)
        same = [u for u in left if u.table == effect.table and u.compared - set(u.generated) == columns]
        if not same or effect.index:
            continue
        yield Finding(
            severity=Severity.WARN,
            code="unique_left",
            fact=f"{effect.table}: the swap of ({', '.join(effect.columns)}) leaves"
            f" {', '.join(u.name for u in same)} on these columns: a second owner's row is refused as before",
            remedy=ASKED,
            step=f"{change.step.stage}: {change.step.spec.title}",
            table=effect.table,
            manual=MANUAL,
        )


def _asked(left: list[Unique]) -> Iterator[Finding]:
    if left:
        yield Finding(
            severity=Severity.ASK,
            code="global_uniques",
            fact="uniques that stay global, so that two owners cannot share a value: "
            + "; ".join(dict.fromkeys(map(str, left))),
            remedy=ASKED,
            manual=MANUAL,
        )


def _declared(left: dict[str, Unique], existing: set[str], named: dict[str, str]) -> Iterator[Finding]:
    """What the plan says of them, and names in it that are none."""
    stays = [f"{name} ({reason})" for name, reason in named.items() if name in left]
    if stays:
        fact = f"uniques that stay global, as the plan says: {'; '.join(stays)}"
        yield Finding(severity=Severity.INFO, code="stays_global", fact=fact, remedy="none needed")
    for name in sorted(set(named) - set(left)):
        reason = (
            "is swapped by the plan, or is per owner already"
            if name in existing
            else "is no unique or exclusion constraint of a table of the plan's sets"
        )
        yield Finding(
            severity=Severity.WARN,
            code="stays_global_unknown",
            fact=f"stays_global names {name}, which {reason}",
            remedy="correct the name, or remove the entry",
        )
