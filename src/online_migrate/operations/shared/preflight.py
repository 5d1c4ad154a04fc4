"""What is checked before any operation on a table; then comes what the operation itself checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Operation,
    Place,
)
from online_migrate.operations.contract.descendants import Descendants

PARTITIONING = "https://www.postgresql.org/docs/current/ddl-partitioning.html"
INHERITANCE = "https://www.postgresql.org/docs/current/ddl-inherit.html"
NO_TABLES = {"f": "a foreign table", "v": "a view", "m": "a materialised view"}
SHOWN_DESCENDANTS = 3


def preflight(operation: Operation[Any], place: Place, params: Any) -> list[Finding]:
    """All findings of a step at once; reads only."""
    return [*_kind(operation, place), *operation.preflight(place, params)]


def _kind(operation: Operation[Any], place: Place) -> Iterator[Finding]:
    """Is it a table at all, and what is with the tables below it?"""
    table = None if place.step.table is None else place.known.table(place.step.table)
    if (
        table is not None
        and table.kind == "p"
        and (operation.takes_partitions or operation.takes_each_partition)
    ):
        yield from _foreign_partitions(operation, place, table=table.name)
        return
    if table is None or operation.descendants is Descendants.ANY:
        return
    if table.kind in NO_TABLES:
        fact = f"{table.name} is {NO_TABLES[table.kind]}: {operation.name} changes tables"
        yield Finding(
            severity=Severity.STOP, code="not_a_table", fact=fact, remedy="take it out of the plan's tables"
        )
    elif table.kind == "p" and operation.descendants in (Descendants.APART, Descendants.REFUSED):
        fact = f"{table.name} is partitioned, and {operation.name} takes one table at a time"
        yield Finding(
            severity=Severity.STOP,
            code="partitioned",
            fact=fact,
            remedy=operation.partitions_way,
            manual=PARTITIONING,
        )
    elif table.descendants:
        names = ", ".join(
            name if schema == table.schema else f"{schema}.{name}"
            for schema, name in table.descendants[:SHOWN_DESCENDANTS]
        )
        more = (
            ""
            if len(table.descendants) <= SHOWN_DESCENDANTS
            else f" and {len(table.descendants) - SHOWN_DESCENDANTS} more"
        )
        yield _inherited(
            operation,
            f"{table.name} has tables below it, {names}{more}: {operation.name}",
            len(table.descendants),
        )


def _foreign_partitions(operation: Operation[Any], place: Place, table: str) -> Iterator[Finding]:
    """Partitions that are foreign tables: another server has their rows, and neither index nor key."""
    names = ", ".join(".".join(p.names) for p in place.partitions() if p.kind == "f")
    if names:
        fact = (
            f"{table} has partitions that are foreign tables, which {operation.name} cannot change: {names}"
        )
        remedy = "run a plan on the server that has their rows, or name the other partitions in the plan"
        yield Finding(
            severity=Severity.STOP, code="foreign_partition", fact=fact, remedy=remedy, manual=PARTITIONING
        )


def _inherited(operation: Operation[Any], begin: str, number: int) -> Finding:
    severity, says, remedy = {
        Descendants.ALONG: (
            Severity.WARN,
            f"changes them too, under the same lock on all {number + 1} tables at once",
            "see that none of them is busy with long transactions then",
        ),
        Descendants.APART: (
            Severity.WARN,
            "is about its own rows only",
            "name them in the plan as well",
        ),
        Descendants.REFUSED: (
            Severity.STOP,
            "would bind them as well, and proves nothing of them",
            "name them in the plan instead of it",
        ),
    }[operation.descendants]
    return Finding(
        severity=severity, code="inherited", fact=f"{begin} {says}", remedy=remedy, manual=INHERITANCE
    )
