"""Which operation a step is: its title begins with the operation's name, which the registry knows."""

from __future__ import annotations

from typing import Any

from online_migrate.operations.contract.base import Operation
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Phase


def operation_of(step: str) -> Operation[Any] | None:
    """The operation of the step with this title; None for one that this version does not have."""
    return OPERATIONS.get(step.partition(" ")[0])


def is_backfill(step: str) -> bool:
    """Whether the step with this title fills rows."""
    operation = operation_of(step)
    return operation is not None and operation.phase is Phase.BACKFILL
