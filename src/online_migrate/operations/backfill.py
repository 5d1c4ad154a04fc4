"""backfill: every old row gets its value, in interleaved, throttled batches, and it is proven that none is left."""

from __future__ import annotations

from typing import ClassVar

from psycopg import sql

from online_migrate.backfill.chunks import Position, Walk, next_slice
from online_migrate.backfill.strategy import decide_strategy, index_with
from online_migrate.backfill.throttlers import throttlers_for
from online_migrate.backfill.worker import Backfill as Work
from online_migrate.backfill.worker import Bench, update_statement
from online_migrate.operations.base import (
    Context,
    Finding,
    Kind,
    Operation,
    Place,
    Severity,
    State,
    Statement,
    TableParams,
)
from online_migrate.plan.model import Phase

MANUAL = "https://www.postgresql.org/docs/current/storage-hot.html"


class BackfillParams(TableParams):
    """What old rows get."""

    column: str
    value: str | int | bool
    """a constant, or a reference such as <master.id>"""


class Backfill(Operation[BackfillParams]):
    """ROW EXCLUSIVE, a batch at a time; see docs/backfill.md for stripes and slices."""

    name = "backfill"
    phase = Phase.BACKFILL
    is_verified_at_once = False
    summary = "give every row that has none its value, in throttled batches, and prove that none is left"
    Params: ClassVar[type[BackfillParams]] = BackfillParams

    def title(self, params: BackfillParams) -> str:
        return f"backfill {params.column}"

    def statements(self, place: Place, params: BackfillParams) -> tuple[Statement, ...]:
        walk, why = (
            Walk(pages_total=8192, chunk_pages=8192, stripes=16),
            "16 stripes unless the table says otherwise",
        )
        table = None if place.catalog is None else place.known.table(place.table)
        if table is not None and table.kind == "r":
            strategy = decide_strategy(place.known.connection, table, params.column)
            walk, why = strategy.walk, strategy.why
        part = next_slice(walk, Position(), 256)
        condition = sql.SQL("true") if part is None else part.condition
        column = sql.Identifier(params.column)
        batch = update_statement(place.sql_table, column, place.value(params.value), condition)
        proof = sql.SQL("SELECT ctid FROM ONLY {} WHERE {} IS NULL LIMIT 1000").format(
            place.sql_table, column
        )
        return (
            Statement(sql=batch, kind=Kind.BATCH, note=why),
            Statement(
                sql=proof, kind=Kind.READ, note="the proof: one statement, one snapshot, no row", group=1
            ),
        )

    def preflight(self, place: Place, params: BackfillParams) -> list[Finding]:
        table = place.known.table(place.table)
        findings = []
        if table is not None and table.kind != "r":
            what = {
                "p": "partitioned",
                "f": "a foreign table",
                "v": "a view",
                "m": "a materialised view",
            }.get(table.kind, table.kind)
            fact = f"{place.table} is {what}; a backfill walks tables of rows"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="not_a_table",
                    fact=fact,
                    remedy="name its partitions, or take it out of the set",
                )
            )
        index = None if table is None or self._is_done(place) else index_with(table, params.column)
        if index is not None:
            fact = f"index {index} holds {place.table}.{params.column}: no heap-only updates, about 2.4 times the WAL and twice the time"
            findings.append(
                Finding(
                    severity=Severity.INFO,
                    code="index_on_column",
                    fact=fact,
                    remedy="build it after the backfill",
                    manual=MANUAL,
                )
            )
        findings += self._blind(place)
        return findings

    def _blind(self, place: Place) -> list[Finding]:
        stage = place.plan.stage(place.step.stage)
        found = []
        for throttler in throttlers_for(stage.hold_when) if stage is not None else ():
            remedy = throttler.blind(place.known.connection)
            if remedy is not None:
                fact = f"throttler {throttler.name} of stage {place.step.stage} cannot see what it must know"
                found.append(
                    Finding(severity=Severity.STOP, code="blind_throttler", fact=fact, remedy=remedy)
                )
        return found

    def _is_done(self, place: Place) -> bool:
        if place.journal is None or place.run_id is None:
            return False
        return any(
            s.key == place.step.key and s.state == "done" for s in place.journal.read_steps(place.run_id)
        )

    def state(self, place: Place, params: BackfillParams) -> State:  # noqa: ARG002
        """The journal's, not the catalog's: only verify scans rows."""
        if place.journal is None or place.run_id is None:
            return State.ABSENT
        return (
            State.PARTIAL
            if place.journal.read_cursor(place.run_id, place.step.key) is not None
            else State.ABSENT
        )

    def execute(self, context: Context, params: BackfillParams) -> int:
        value = context.place.value(params.value).as_string(None)
        return Work(bench_of(context), table=context.place.table, column=params.column, value=value).run()

    def verify(self, place: Place, params: BackfillParams) -> list[Finding]:
        row = place.known.connection.execute(
            sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {} IS NULL LIMIT 1").format(
                place.sql_table, sql.Identifier(params.column)
            )
        ).fetchone()
        if row is None:
            return []
        fact = f"{place.table} has rows without {params.column}, e.g. at ctid {row[0]}"
        return [
            Finding(
                severity=Severity.STOP,
                code="rows_left",
                fact=fact,
                remedy="find who writes them; then backfill again",
            )
        ]


def bench_of(context: Context) -> Bench:
    """What the backfill's worker needs of a step's context."""
    return Bench(
        work=context.work,
        watch=context.watch,
        journal=context.journal,
        run_id=context.run_id,
        key=context.step.key,
        schema=context.place.schema,
        fence=context.fence,
        pace=context.pace,
        hold_when=context.hold_when,
        locks=context.locks,
        emit=context.emit,
        clock=context.clock,
        signal=context.signal,
        is_stop_asked=context.is_stop_asked,
    )
