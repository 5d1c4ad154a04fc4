"""What the user asked for: Plan → Stage → StepSpec, table sets and secrets.  Never touches a database."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from online_migrate.plan.hours import Hours
from online_migrate.plan.standby import standby_problem
from online_migrate.plan.units import MOST_WORKERS, Duration, Duty, Share, Size, write_seconds, write_share


class Strict(BaseModel):
    """Unknown keys are errors, nothing is converted silently, and values are immutable."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )


def _word(pattern: str, expected: str) -> tuple[AfterValidator, WithJsonSchema]:
    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$"})


def _check_relation(name: str) -> str:
    if "." in name:
        raise ValueError("name the table without its schema, which is the plan's key `schema`")
    if not name.strip() or len(name.encode()) > 63:
        raise ValueError("a PostgreSQL name has 1 to 63 bytes")
    return name


Name = Annotated[str, *_word("[a-z][a-z0-9_]*", "a lower-case letter, then lower-case letters, digits and _")]
"""What a plan calls a stage, a set, a secret, or itself."""
TableName = Annotated[str, AfterValidator(_check_relation), Field(json_schema_extra={"minLength": 1})]
"""A table of the plan's schema, as PostgreSQL spells it, without quotes."""


class Phase(Enum):
    """What a stage belongs to.  During expand and backfill the current release of the application keeps
    working.
    """

    EXPAND = "expand"
    BACKFILL = "backfill"
    CONTRACT = "contract"


class Requires(Strict):
    """What the plan needs of the server."""

    postgres: Annotated[str, *_word(r">=[0-9]+(\.[0-9]+)?", "the form >=14.4")] = ">=14.4"
    """the oldest version of the server"""


class SecretSource(Strict):
    """Where a secret comes from: an environment variable, a file, or generated and shown once."""

    env: Annotated[str, *_word("[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")] | None = None
    """the environment variable that holds it"""
    file: str | None = Field(default=None, min_length=1)
    """the file that holds it"""
    generate: Literal["urlsafe"] | None = None
    """generated when its row is written, and shown once"""
    length: int = Field(default=32, ge=16, le=1024, alias="bytes")
    """how many random bytes are generated"""

    @model_validator(mode="after")
    def _has_one_source(self) -> SecretSource:
        if sum(s is not None for s in (self.env, self.file, self.generate)) != 1:
            msg = "give exactly one of env, file, generate"
            raise ValueError(msg)
        if self.generate is None and "length" in self.model_fields_set:
            msg = "bytes is the length of a generated secret: use it with generate only"
            raise ValueError(msg)
        return self


class Also(Strict):
    """More tables of a set, which only the database knows."""

    referencing: TableName
    """every table from which foreign keys lead to this one, at any distance"""


class TableSet(Strict):
    """A named list of tables that steps apply to."""

    tables: list[TableName] = Field(min_length=1)
    """in the order in which each step visits them"""
    also: Also | None = None
    """more tables, found in the database; the first run fixes the list"""
    exclude: list[TableName] = []
    """tables that ``also`` would find, but that do not belong to the set"""

    @model_validator(mode="after")
    def _names_each_table_once(self) -> TableSet:
        if twice := sorted({t for t in self.tables if self.tables.count(t) > 1}):
            raise ValueError(f"tables names {', '.join(twice)} twice")
        if both := sorted(set(self.tables) & set(self.exclude)):
            raise ValueError(f"tables and exclude both name {', '.join(both)}")
        if self.exclude and self.also is None:
            raise ValueError("exclude removes tables that `also` finds, but the set has no `also`")
        return self


class StaysGlobal(Strict):
    """A unique that the plan leaves as it is, because two owners cannot share its values."""

    index: str = Field(min_length=1)
    """name of the unique index, or of the unique or exclusion constraint"""
    reason: str = Field(min_length=1)
    """why two owners cannot share a value"""


class Gate(Strict):
    """What must be true before a stage starts."""

    approval: str = Field(min_length=1)
    """what an operator confirms with ``online-migrate approve``"""


class Pace(Strict):
    """How fast a backfill goes."""

    batch_target: Duration = 0.05
    """how long a batch should take"""
    duty: Duty = 0.5
    """share of the time in which batches run, summed over workers; the rest is pause.  Above 100% needs
    several workers"""
    workers: int = Field(default=1, ge=1, le=MOST_WORKERS)
    """tables that are filled at the same time, the largest first; each has its own connection, beside four
    shared ones"""
    max_rows: int = Field(default=50_000, ge=1, le=10_000_000)
    """upper bound of a batch's rows, estimated from the pages before it"""
    min_rows: int = Field(default=50, ge=1, le=10_000_000)
    """lower bound of a batch's rows; the last batch may have fewer"""
    max_wal: Size = 16 * 1024**2
    """upper bound of a batch's WAL, estimated from similar rows; min_rows has priority"""

    @model_validator(mode="after")
    def _has_room(self) -> Pace:
        if self.min_rows > self.max_rows:
            raise ValueError(f"min_rows {self.min_rows} is more than max_rows {self.max_rows}")
        if self.duty > self.workers:
            raise ValueError(
                f"duty {write_share(self.duty)} is more than {self.workers} worker{'s' * (self.workers > 1)}"
                " can do:"
                f" give up to {self.workers}00%, or more workers"
            )
        return self


LONGEST_QUERY_S = 3.0
"""about the revisit interval of a page at the default pace, and far below the 15 s after which a reading is
too old"""


class HoldQuery(Strict):
    """A query that holds a backfill: while its boolean is true, or while its number
    is at or above ``limit``.
    """

    name: Name
    sql: str = Field(min_length=1)
    """read-only; one row of one column"""
    limit: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """the number that holds; without it the query must return a boolean"""
    timeout: Duration = 1.0
    """the query is cancelled after this, at most 3s: its own snapshot keeps dead rows, too"""

    @model_validator(mode="after")
    def _is_short(self) -> HoldQuery:
        if self.timeout > LONGEST_QUERY_S:
            raise ValueError(
                f"{self.name}: timeout {write_seconds(self.timeout)} is more than"
                f" {write_seconds(LONGEST_QUERY_S)}: no batch"
                " runs during the query, and its snapshot keeps dead rows; query a small table that another"
                " job"
                " keeps up to date"
            )
        return self


class HoldWhen(Strict):
    """Health readings that hold a backfill; a reading without a value here does not hold."""

    standby_lag: Size | None = None
    """WAL that the slowest streaming standby has not replayed yet"""
    wal_since_checkpoint: Share | None = None
    """WAL since the last checkpoint, as a share of max_wal_size"""
    oldest_snapshot: Duration | None = None
    """age of the oldest snapshot, which keeps dead rows from being pruned"""
    standby_delay: Duration | None = None
    """how long the slowest streaming standby is behind"""
    wal_held: Size | None = None
    """WAL that a replication slot or a failing archiver retains"""
    lock_waiters: int | None = Field(default=None, ge=1)
    """application sessions that have waited for a lock for more than 100 ms"""
    commit_latency: Duration | None = None
    """how long a commit takes, its flush to disk and to synchronous standbys included"""
    multixact_age: Share | None = None
    """age of the oldest multixact, as a share of autovacuum_multixact_freeze_max_age"""
    multixact_members: Share | None = None
    """used share of the space for multixact members; needs EXECUTE on pg_ls_dir"""
    queries: list[HoldQuery] = []
    """your own queries"""

    @model_validator(mode="after")
    def _names_each_query_once(self) -> HoldWhen:
        names = [q.name for q in self.queries]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"queries names {', '.join(twice)} twice")
        return self


class EndBlockers(Strict):
    """Which sessions that block a lock may be cancelled or terminated.  Never: vacuums to prevent wraparound,
    replication, superusers, prepared transactions, and sessions that hold a strong lock themselves.
    """

    older_than: Duration
    """a blocking transaction that is older than this is cancelled"""
    matching: str = Field(min_length=1)
    """a regular expression that must match part of 'user application: statement'"""
    terminate_after: Duration | None = None
    """after this much longer its session is terminated; without it, never"""
    spare_writers: bool = True
    """spare transactions that have written something, which would be rolled back"""

    @model_validator(mode="after")
    def _has_a_pattern(self) -> EndBlockers:
        try:
            re.compile(self.matching)
        except re.error as error:
            raise ValueError(f"matching is not a valid regular expression: {error}") from error
        return self


class LockRules(Strict):
    """Bounds of every lock window."""

    lock_wait: Duration = 1800.0
    """how long to wait, outside the lock queue, for blocking transactions to end"""
    blocker_age: Duration = 0.2
    """a blocking transaction that is older than this is waited for outside the lock queue"""
    attempts: int = Field(default=60, ge=1, le=10_000)
    """attempts to acquire a lock before the run stops"""
    hold_cap: Duration = 1.0
    """the longest that a strong lock is held"""
    exposure: Duration = 30.0
    """exposure budget of one table: the time, summed over a run's attempts, in which application statements
    can have waited behind our lock requests"""
    exposure_run: Duration = 120.0
    """exposure budget of all tables of a run together"""
    end_blockers: EndBlockers | None = None
    """blocking sessions that may be cancelled; without it, none"""
    standbys: list[str] = []
    """standbys whose long queries are checked before ACCESS EXCLUSIVE; connection strings, completed from
    --dsn: host=replica-1"""
    long_statement: Duration = 86_400.0
    """a concurrent index build or a VALIDATE that takes longer is cancelled and cleaned up"""

    @model_validator(mode="after")
    def _holds_no_password(self) -> LockRules:
        for number, standby in enumerate(self.standbys, start=1):
            if problem := standby_problem(standby):
                raise ValueError(f"standbys, entry {number} (not shown: it may hold a password): {problem}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One line of a stage: an operation over one table or over a set."""

    operation: str
    title: str
    """its name within its stage: ``create_index idx_<table>_bot_id``"""
    params: BaseModel
    where: str
    """file:line:column"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    name: str
    phase: Phase
    gate: Gate | None
    pace: Pace
    hold_when: HoldWhen
    steps: tuple[StepSpec, ...]
    where: str


ORDER: Final = "order of the steps"
"""the part of a plan that holds the order of its steps"""


def step_part(stage: str, title: str) -> str:
    """What a step is called among :meth:`Plan.parts`."""
    return f"stage {stage}, step {title}"


def set_part(name: str) -> str:
    """What a table set is called among :meth:`Plan.parts`."""
    return f"table set {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    name: str
    requires: Requires
    schema: str
    secrets: Mapping[str, SecretSource]
    table_sets: Mapping[str, TableSet]
    locks: LockRules
    stages: tuple[Stage, ...]
    path: Path
    stays_global: tuple[StaysGlobal, ...] = ()
    """uniques that are meant to be the same for all owners"""
    hours: Hours | None = None
    """when a run may work"""

    def stage(self, name: str) -> Stage | None:
        return next((s for s in self.stages if s.name == name), None)

    def parts(self) -> dict[str, str]:
        """Digests of what must not change while a run is open, by a name for people.

        Hours, pace, throttlers, gates and lock rules are not among them: they may change during a run.  Nor
        are values that equal the default: so a newer program, which knows more keys, can resume an older
        one's run.
        """
        parts = {"requires": self.requires.postgres, "schema": self.schema}
        parts |= {set_part(n): s.model_dump_json(exclude_defaults=True) for n, s in self.table_sets.items()}
        if self.stays_global:
            parts["stays_global"] = json.dumps([e.model_dump() for e in self.stays_global])
        parts |= {f"secret {n}": s.model_dump_json(exclude_defaults=True) for n, s in self.secrets.items()}
        parts[ORDER] = json.dumps([[s.name, [t.title for t in s.steps]] for s in self.stages])
        for stage in self.stages:
            for spec in stage.steps:
                params = json.dumps(
                    spec.params.model_dump(mode="json", exclude_defaults=True), sort_keys=True
                )
                parts[step_part(stage.name, spec.title)] = f"{spec.operation} {params}"
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in parts.items()}

    def fingerprint(self) -> str:
        """One digest over :meth:`parts`."""
        return hashlib.sha256(json.dumps(self.parts(), sort_keys=True).encode()).hexdigest()


def changes_between(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """What differs between two plans' :meth:`Plan.parts`, for people."""
    removed = [f"{n}: was removed" for n in before if n not in now]
    added = [f"{n}: was added" for n in now if n not in before]
    other = [f"{n}: was changed" for n in now if n in before and before[n] != now[n]]
    # steps that were removed or added change the order as well
    if any(change.startswith("stage ") for change in removed + added):
        other = [change for change in other if not change.startswith(f"{ORDER}:")]
    return tuple(removed + added + other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation on one table; the journal has a row for each."""

    stage: str
    spec: StepSpec
    table: str | None
    partition: str | None = None
    """the partition of ``table`` whose rows the step works on; schema.name where it is in another schema"""

    @property
    def key(self) -> tuple[str, str, str]:
        """stage, step, table or partition: unique within a plan; the journal's key."""
        return (self.stage, self.spec.title, self.partition or self.table or "")

    def __str__(self) -> str:
        return " / ".join(p for p in self.key if p)
