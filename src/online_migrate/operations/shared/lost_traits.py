"""What an application may use of an old unique besides its uniqueness, and that the new one does not have."""

from __future__ import annotations

from online_migrate.discovery.uniques import read_traits
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.operations.schema_before import schema_before
from online_migrate.postgres.catalog import IndexInfo, TableInfo

MANUAL = "https://www.postgresql.org/docs/current/sql-createindex.html"

_REMEDIES = {
    "DEFERRABLE": "see that the application neither defers it nor swaps values: it would fail (23505)",
    "NULLS": "see that the application does not rely on one NULL at most",
    "operator": "build a plain index with it before, for look-ups such as LIKE 'a%'",
    "COLLATE": "see that values which are equal in that collation only may be there twice",
    "INCLUDE": "build a plain index with these columns before, for index-only scans",
    "order": "build a plain index in that order before, where a query relies on it",
}
"""by the first word of what is lost"""


def lost_traits(place: Place, table: TableInfo, old: tuple[IndexInfo, ...], successor: str) -> list[Finding]:
    """A constraint that defers, an operator class of look-ups, columns of index-only scans, …"""
    new = table.index(successor)
    traits = read_traits(place.known.connection, [i.oid for i in (*old, *(() if new is None else (new,)))])
    then = schema_before(place).table(place.table)
    planned = None if then is None else then.indexes.get(successor)
    kept = traits[new.oid] if new is not None else frozenset() if planned is None else planned.traits
    lost = {i.name: sorted(traits[i.oid] - kept) for i in old}
    return [
        Finding(
            severity=Severity.WARN,
            code="unique_loses",
            fact=f"{name} of {place.table} has what {successor} does not: {', '.join(what)}",
            remedy="; ".join(dict.fromkeys(_REMEDIES[trait.split()[0]] for trait in what)),
            manual=MANUAL,
        )
        for name, what in lost.items()
        if what
    ]
