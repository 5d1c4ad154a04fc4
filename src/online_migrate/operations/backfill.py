"""backfill: fill a column of all old rows in interleaved, throttled batches, and prove that none is left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar, Literal

from psycopg import sql

from online_migrate.backfill.chunks import Position, Walk, next_slice
from online_migrate.backfill.context import Target, update_statement
from online_migrate.backfill.hazards.filled_column import FilledColumn
from online_migrate.backfill.hazards.given_values import read_value_hazards
from online_migrate.backfill.hazards.other_owners import read_other_owners
from online_migrate.backfill.hazards.soak import read_soak_hazards
from online_migrate.backfill.hazards.table import read_table_hazards
from online_migrate.backfill.hazards.triggers import read_writing_triggers
from online_migrate.backfill.rows import unfilled_statement
from online_migrate.backfill.strategy import decide_strategy, index_with
from online_migrate.backfill.sweep import LATE_LIMIT
from online_migrate.backfill.throttlers import WalSinceCheckpoint, throttlers_for
from online_migrate.backfill.value_params import ExpressionParams, FromParentParams, ValueParams, value_of
from online_migrate.backfill.values import Constant, Value
from online_migrate.backfill.worker import Backfill as TableBackfill
from online_migrate.findings import Finding, Severity
from online_migrate.journal.states import StepState
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
    TableParams,
)
from online_migrate.operations.contract.effects import (
    Effect,
    FillsColumn,
    ReadsColumns,
    Source,
)
from online_migrate.operations.schema_before import plan_context
from online_migrate.operations.shared.backfill_forecast import (
    find_forecast,
    is_first,
    planned_index,
    soak_text,
)
from online_migrate.operations.shared.backfill_reads import (
    is_of_the_row,
    leaves_left_out,
    owner_tables,
    skipped_keys,
)
from online_migrate.operations.shared.steps import backfill_context, recording
from online_migrate.plan.model import Phase
from online_migrate.plan.units import Duration

MANUAL = "https://www.postgresql.org/docs/current/storage-hot.html"


class BackfillParams(TableParams):
    """The value that old rows get."""

    column: str
    """column to fill; only rows in which it is NULL are written"""
    value: ValueParams
    """a constant, a reference such as <master.id>, the value of a parent row, or an SQL expression over the
    row
    """
    triggers: Literal["fire", "skip"] = "fire"
    """skip: no trigger fires for the batches, foreign keys included (session_replication_role = replica)"""
    other_owners: Literal["stop", "allowed"] = "stop"
    """stop: `check` stops where the plan fills the column of several tables, this one with a constant, and
    rows have other values, or the table that the column references has several rows; allowed: the constant is
    right for every row that has NULL
    """
    quiet: Duration | None = None
    """soak time: the step ends only after no row with a NULL was seen for this long"""


class Backfill(Operation[BackfillParams]):
    """Fill a column of every row that has NULL in it, in small throttled batches, then prove that no such row
    is left.

    What it does: UPDATE over ranges of pages, a stripe of the rows at a time, so that updates stay heap-only
    where no index holds the column. Each batch commits together with its cursor. The pace follows `pace`, and
    `hold_when` stops it while standbys, WAL or snapshots need a rest. After the last page it sweeps rows that
    were locked or new, and one statement in one snapshot proves that no NULL is left. See docs/backfill.md.

    Locks: ROW EXCLUSIVE on the table, and row locks of one batch for about 50 ms. A batch never waits longer
    than 50 ms for a row that the application has locked; such rows are left to the sweep.

    On a crash: nothing is lost and nothing is done twice. The next run continues after the last batch that
    committed.

    Partitioned tables: a step for each partition with rows, with a cursor of its own. A partition that is
    attached later gets its step at the next stage, or when the command is run again.

    How to undo: nothing to undo before a later step relies on it. Set the column to NULL again, in batches,
    or drop the column.
    """

    name = "backfill"
    phase = Phase.BACKFILL
    is_verified_at_once = False
    takes_each_partition = True
    summary = "fill a column of old rows in throttled batches, and prove that no row is left"
    Params: ClassVar[type[BackfillParams]] = BackfillParams

    def title(self, params: BackfillParams) -> str:
        """Names the source of the value too: one stage may fill parents and then their children."""
        if isinstance(params.value, FromParentParams):
            joins = params.value.joins
            return f"backfill {params.column} from {joins[-1].table} by {', '.join(j.on for j in joins)}"
        return f"backfill {params.column}{' by sql' if isinstance(params.value, ExpressionParams) else ''}"

    def why_alone(self, place: Place, params: BackfillParams, tables: Collection[str]) -> str:
        """The plan's order counts where rows of one table may depend on another table's backfill."""
        if isinstance(params.value, ExpressionParams) and not is_of_the_row(place, params.value.sql):
            return "its value may be read from another table: it has a subquery, or calls a function that may"
        if isinstance(params.value, FromParentParams):
            read = {name for j in params.value.joins for name in place.family_of(j.table)}
            if shared := sorted(read.intersection(tables)):
                return f"its value is read from {shared[0]}, which is also filled"
        if place.catalog is not None:
            writers = read_writing_triggers(
                place.catalog.connection, place.schema, tables, skip=params.triggers == "skip"
            )
            if writers:
                return f"trigger {writers[0]} may write another table"
        return ""

    def waits_at_its_end(self, params: BackfillParams) -> bool:
        return params.quiet is not None

    def execute_pass(self, context: Context, params: BackfillParams) -> None:
        """The pass.  Its batches are short; sweep and proof hold a snapshot while they read, and no page is
        pruned then.
        """
        self._work(context, params).walk()

    def effects(self, place: Place, params: BackfillParams) -> tuple[Effect, ...]:
        source, reads, before = Source.CONSTANT, list[ReadsColumns](), place.table
        if isinstance(params.value, FromParentParams):
            source = Source.PARENT
            for join in params.value.joins:
                taken = () if join.column is None else (join.column,)
                reads.append(ReadsColumns(table=before, columns=(join.on,)))
                reads.append(ReadsColumns(table=join.table, columns=(join.key, *taken)))
                before = join.table
        elif isinstance(params.value, ExpressionParams):
            source = Source.EXPRESSION
        fill = FillsColumn(
            table=place.table,
            column=params.column,
            source=source,
            value=params.value,
            skip_triggers=params.triggers == "skip",
            soak_s=params.quiet or 0.0,
        )
        return (*reads, fill)

    def statements(self, place: Place, params: BackfillParams) -> tuple[Statement, ...]:
        walk = Walk(pages_total=8192, chunk_pages=8192, stripes=16)
        reason = "16 stripes, or fewer if fewer rows fit on a page of the table"
        rows = place.of_rows
        table = None if place.catalog is None else rows.known.table(rows.table)
        if table is not None and table.kind == "r":
            strategy = decide_strategy(place.known.connection, table, params.column)
            walk, reason = strategy.walk, strategy.reason
        above = planned_index(place, place.table, params.column)
        if above is not None and (table is None or index_with(table, params.column) is None):
            walk = replace(walk, stripes=1)
            reason = (
                f"index {above}, which the plan builds above, contains {params.column}:"
                " no heap-only updates, so one stripe with vacuum rounds"
            )
        part = next_slice(walk, Position(), 256)
        condition = sql.SQL("true") if part is None else part.condition
        column = sql.Identifier(params.column)
        value = _value(place, params)
        batch = update_statement(rows.sql_table, column, value, condition, row=rows.table)
        key = () if table is None else Target(table=table, column=params.column, value=value).key
        proof = unfilled_statement(rows.sql_table, column, key, limit=LATE_LIMIT)
        note = f"the proof: one statement in one snapshot finds no row{soak_text(params.quiet)}"
        if table is None:
            note += "; names rows by their primary key if there is one"
        return (
            Statement(sql=batch, kind=Kind.BATCH, note=reason),
            Statement(sql=proof, kind=Kind.READ, note=note, group=1),
        )

    def rehearsed(self, place: Place, params: BackfillParams) -> tuple[Statement, ...]:
        """One batch over all rows of the copy."""
        rows = place.of_rows
        batch = update_statement(
            rows.sql_table,
            sql.Identifier(params.column),
            _value(place, params),
            sql.SQL("true"),
            row=rows.table,
        )
        return (Statement(sql=batch, kind=Kind.BATCH),)

    def preflight(self, place: Place, params: BackfillParams) -> list[Finding]:
        rows = place.of_rows
        table = rows.known.table(rows.table)
        findings = [*self._blind(place), *self._holds_for_long(place)]
        if table is None or self._is_done(place):
            return findings
        skip = params.triggers == "skip"
        value, plan = _value(place, params), plan_context(place)
        findings += read_table_hazards(
            place.known.connection, table, params.column, value, skip_triggers=skip
        )
        column = FilledColumn(catalog=rows.known, table=table, name=params.column, plan=plan)
        hazards = read_value_hazards(column, value)
        findings += hazards
        is_asked = params.other_owners == "stop" and self.state(place, params) is State.ABSENT
        if is_asked and isinstance(value, Constant) and not hazards:
            findings += read_other_owners(column, value, owner_tables(place, table, params.column))
        findings += skipped_keys(place, params.column) if skip else []
        if params.quiet is not None:
            findings += read_soak_hazards(place.known.connection, table, params.column)
        index, above = index_with(table, params.column), planned_index(place, place.table, params.column)
        if index is not None or above is not None:
            named = f"index {index}" if index else f"index {above}, which the plan builds above,"
            fact = (
                f"{named} contains {table.name}.{params.column}: no heap-only updates,"
                " about 2.4 times the WAL and twice the time"
            )
            remedy = "create the index after the backfill"
            findings.append(
                Finding(
                    severity=Severity.INFO, code="index_on_column", fact=fact, remedy=remedy, manual=MANUAL
                )
            )
        return (
            findings
            + self._left_out(place, params)
            + find_forecast(place, params.column, soak_text(params.quiet), is_constant=value.is_constant)
        )

    def _blind(self, place: Place) -> list[Finding]:
        stage = place.plan.stage(place.step.stage)
        found = []
        for throttler in throttlers_for(stage.hold_when) if stage is not None else ():
            remedy = throttler.blind(place.known.connection)
            if remedy is not None:
                fact = f"throttler {throttler.name} of stage {place.step.stage} cannot take its reading"
                found.append(
                    Finding(severity=Severity.STOP, code="blind_throttler", fact=fact, remedy=remedy)
                )
        return found

    def _holds_for_long(self, place: Place) -> list[Finding]:
        """Reported once, at the step's first table."""
        stage = place.plan.stage(place.step.stage)
        share = None if stage is None else stage.hold_when.wal_since_checkpoint
        if share is None or not is_first(place):
            return []
        fact = WalSinceCheckpoint(limit_share=share).too_low(place.known.connection)
        if fact is None:
            return []
        remedy = "set a larger share, or run CHECKPOINT while it holds the run"
        return [Finding(severity=Severity.WARN, code="checkpoint_share", fact=fact, remedy=remedy)]

    def _left_out(self, place: Place, params: BackfillParams) -> list[Finding]:
        """Leaves that the plan does not fill although it fills others; one may have been attached since."""
        if place.step.partition is not None:
            return []
        root, names = leaves_left_out(place, params.column)
        if not names:
            return []
        fact = f"partitions of {root} in which the plan does not backfill {params.column}: {', '.join(names)}"
        remedy = "name them in the plan as well, unless their rows must stay as they are"
        return [Finding(severity=Severity.WARN, code="partitions_left_out", fact=fact, remedy=remedy)]

    def _is_done(self, place: Place) -> bool:
        if place.journal is None or place.run_id is None:
            return False
        record = place.journal.read_step(place.run_id, place.step.key)
        return record is not None and record.state is StepState.DONE

    def state(self, place: Place, params: BackfillParams) -> State:  # noqa: ARG002
        """By the journal, not by the catalog: only verify scans rows."""
        if place.journal is None or place.run_id is None:
            return State.ABSENT
        return (
            State.PARTIAL
            if place.journal.read_cursor(place.run_id, place.step.key) is not None
            else State.ABSENT
        )

    def execute(self, context: Context, params: BackfillParams) -> int:
        whole = [s.text for s in self.rehearsed(context.place, params)]
        with recording(context, Kind.BATCH, whole):
            return self._work(context, params).run()

    def _work(self, context: Context, params: BackfillParams) -> TableBackfill:
        rows = context.place.of_rows
        return TableBackfill(
            backfill_context(context, context.step),
            table=rows.table,
            schema=rows.schema,
            column=params.column,
            value=_value(context.place, params),
            skip_triggers=params.triggers == "skip",
            quiet_s=params.quiet or 0.0,
        )

    def verify(self, place: Place, params: BackfillParams) -> list[Finding]:
        rows = place.of_rows
        row = rows.known.connection.execute(
            sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL LIMIT 1").format(
                rows.sql_table, sql.Identifier(params.column)
            )
        ).fetchone()
        if row is None:
            return []
        fact = f"{rows.table} has rows without {params.column}, for example at ctid {row[0]}"
        remedy = "find the statement that writes them, then backfill again"
        return [Finding(severity=Severity.STOP, code="rows_left", fact=fact, remedy=remedy)]


def _value(place: Place, params: BackfillParams) -> Value:
    return value_of(params.value, schema=place.schema, constant=place.constant, equals_in=place.equals_in)
