"""The explicit list of operations: a new kind of step is a file and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from online_migrate.operations.add_check import AddCheck
from online_migrate.operations.add_column import AddColumn
from online_migrate.operations.add_foreign_key import AddForeignKey
from online_migrate.operations.add_primary_key import AddPrimaryKey
from online_migrate.operations.add_unique import AddUnique
from online_migrate.operations.analyze import Analyze
from online_migrate.operations.backfill import Backfill
from online_migrate.operations.contract.base import Operation, Place
from online_migrate.operations.contract.effects import PlanEffects
from online_migrate.operations.create_index import CreateIndex
from online_migrate.operations.create_tables import CreateTables
from online_migrate.operations.drop_default import DropDefault
from online_migrate.operations.drop_index import DropIndex
from online_migrate.operations.drop_not_null import DropNotNull
from online_migrate.operations.ensure_row import EnsureRow
from online_migrate.operations.set_default import SetDefault
from online_migrate.operations.set_not_null import SetNotNull
from online_migrate.operations.swap_unique import SwapUnique
from online_migrate.operations.verify_owner import VerifyOwner
from online_migrate.operations.verify_sql import VerifySql
from online_migrate.plan.model import Plan, Step

OPERATIONS: dict[str, Operation[Any]] = {
    operation.name: operation
    for operation in (
        CreateTables(),
        EnsureRow(),
        AddColumn(),
        Backfill(),
        CreateIndex(),
        DropIndex(),
        AddUnique(),
        AddPrimaryKey(),
        AddForeignKey(),
        AddCheck(),
        SetNotNull(),
        DropDefault(),
        SetDefault(),
        DropNotNull(),
        VerifyOwner(),
        SwapUnique(),
        Analyze(),
        VerifySql(),
    )
}


def effects_of(plan: Plan, steps: Iterable[Step]) -> PlanEffects:
    """What each step of the plan changes, as its operation declares it."""
    return PlanEffects(
        (
            step,
            OPERATIONS[step.spec.operation].effects(
                Place(plan=plan, step=step, catalog=None), step.spec.params
            ),
        )
        for step in steps
    )
