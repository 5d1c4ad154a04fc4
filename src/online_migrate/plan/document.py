"""The plan file as it is written; pydantic checks it against these models, and the JSON Schema is made from
them.

Steps are not read here: each operation says which keys its steps take.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from online_migrate.plan.hours import EXAMPLE, PATTERN, Hours
from online_migrate.plan.model import (
    Gate,
    HoldWhen,
    LockRules,
    Name,
    Pace,
    Requires,
    SecretSource,
    StaysGlobal,
    Strict,
    TableName,
    TableSet,
)


def _check_hours(text: str) -> str:
    Hours.parse(text)
    return text


HoursText = Annotated[
    str,
    AfterValidator(_check_hours),
    WithJsonSchema({"type": "string", "pattern": f"^{PATTERN}$", "examples": [EXAMPLE]}),
]


class StageEntry(Strict):
    """A part of the plan.  The run can stop after each one for as long as needed."""

    stage: Name
    """its name, once in a plan"""
    phase: Literal["expand", "backfill", "contract"] | None = None
    """what it belongs to; by default the latest among its operations"""
    gate: Gate | None = None
    """what must be true before it starts"""
    pace: Pace = Field(default_factory=Pace)
    """how fast its backfills go; may be changed between two runs"""
    hold_when: HoldWhen = Field(default_factory=HoldWhen)
    """health readings that hold its backfills"""
    steps: list[Any] = Field(min_length=1)
    """one operation each, in this order: all tables of a set, then the next step"""


class PlanFile(Strict):
    """A migration for online-migrate: what to change, in which order, and what to wait for."""

    plan: Name
    """its name; runs, metrics and the journal carry it"""
    requires: Requires = Field(default_factory=Requires)
    """what the server must be"""
    schema_: TableName = Field(default="public", alias="schema")
    """where all its tables are"""
    secrets: dict[Name, SecretSource] = Field(default_factory=dict)
    """values that a plan must not contain, by name: ``<secret.NAME>``"""
    table_sets: dict[Name, TableSet] = Field(default_factory=dict)
    """named lists of tables that steps apply to"""
    stays_global: list[StaysGlobal] = Field(default_factory=list)
    """uniques that the plan does not swap, each with the reason; `check` asks about all others"""
    hours: HoursText | None = None
    """when a run may work, such as `22:00-06:00 Europe/Berlin`; at other times it is paused.  May be changed
    between two runs"""
    locks: LockRules = Field(default_factory=LockRules)
    """bounds of every lock window"""
    stages: list[StageEntry] = Field(min_length=1)
    """in the order of the run"""

    @model_validator(mode="after")
    def _names_each_unique_once(self) -> PlanFile:
        names = [entry.index for entry in self.stays_global]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"stays_global names {', '.join(twice)} twice")
        return self
