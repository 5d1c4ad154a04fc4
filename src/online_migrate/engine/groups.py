"""Which steps are taken together: one after the other, or the tables of one backfill side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from online_migrate.operations.contract.base import Place
from online_migrate.operations.registry import OPERATIONS
from online_migrate.plan.model import Stage, Step


class Part(Enum):
    """Of a step."""

    WHOLE = "whole"
    PASS = "pass"
    """what may be done beside the same of other tables, or before their end: see Operation.execute_pass"""
    FINISH = "finish"
    """all that is left of it: Operation.execute"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The steps of one line of the plan, of which ``workers`` are taken at once: each part of all, then the
    next part.
    """

    steps: tuple[Step, ...]
    workers: int = 1
    parts: tuple[Part, ...] = (Part.WHOLE,)
    why_alone: str = ""
    """why they are taken one after the other, where the plan has workers for more"""


def groups_of(stage: Stage, steps: Iterable[Step], place_of: Callable[[Step], Place]) -> tuple[Group, ...]:
    """The stage's steps in the plan's order, the tables of each line together."""
    mine = (s for s in steps if s.stage == stage.name)
    return tuple(_group(stage, tuple(same), place_of) for _, same in groupby(mine, key=lambda s: id(s.spec)))


def _group(stage: Stage, steps: tuple[Step, ...], place_of: Callable[[Step], Place]) -> Group:
    workers, spec = min(stage.pace.workers, len(steps)), steps[0].spec
    operation, why_alone = OPERATIONS[spec.operation], ""
    if workers > 1:
        tables = list(dict.fromkeys(name for s in steps for name in (s.table, s.partition) if name))
        why_alone = operation.why_alone(place_of(steps[0]), spec.params, tables)
        workers = 1 if why_alone else workers
    is_in_parts = workers > 1 or (len(steps) > 1 and operation.waits_at_its_end(spec.params))
    parts = (Part.PASS, Part.FINISH) if is_in_parts else (Part.WHOLE,)
    return Group(steps=steps, workers=workers, parts=parts, why_alone=why_alone)
