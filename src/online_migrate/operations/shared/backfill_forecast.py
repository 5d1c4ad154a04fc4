"""What a backfill will take, said at `check` for all tables of its step at once."""

from __future__ import annotations

from dataclasses import replace

from online_migrate.backfill.forecast import Forecast, forecast
from online_migrate.backfill.strategy import SMALL_PAGES, index_with
from online_migrate.figures import short_seconds_text
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Place
from online_migrate.operations.schema_before import schema_before
from online_migrate.postgres.catalog import TableInfo


def find_forecast(place: Place, column: str, soak: str, *, is_constant: bool) -> list[Finding]:
    """The forecast of all tables of the step, once, at its first table; and what an instant column would
    save.
    """
    tables = tables_left(place)
    if not is_first(place):
        return []
    stage = place.plan.stage(place.step.stage)
    duty = 1.0 if stage is None else min(stage.pace.duty, len(tables))
    indexed = {
        t.name
        for t in tables
        if index_with(t, column) is not None
        or planned_index(place, place.table if t.ancestors else t.name, column) is not None
    }
    first, *others = (_forecast_of(t, duty, is_sequential=t.name in indexed) for t in tables)
    total = sum(others, first)
    title = place.step.spec.title
    found = [
        Finding(
            severity=Severity.INFO,
            code="forecast",
            fact=f"{title}: {total}{soak}; {_ways(column, tables, indexed)}",
            remedy="none needed; the run gives a better forecast after its first minute",
        )
    ]
    is_new = all(column not in t.columns for t in tables)
    if is_constant and is_new and _is_added(place, column) and total.rows:
        fact = (
            f"{title}: its value is constant and the column does not exist yet:"
            " ADD COLUMN with a default would write no row at all"
        )
        remedy = (
            "`instant: true` at its add_column gives old rows the default of new rows at once,"
            " and saves the whole backfill"
        )
        found.append(Finding(severity=Severity.INFO, code="instant", fact=fact, remedy=remedy))
    return found


def tables_left(place: Place) -> list[TableInfo]:
    """The existing tables of the same step of the plan, in its order."""
    places = (replace(place, step=step).of_rows for step in place.steps_of_line)
    return [t for t in (p.known.table(p.table) for p in places) if t is not None and t.kind == "r"]


def is_first(place: Place) -> bool:
    """Is the step the first of its line whose table exists?  What is said of all of them is said there."""
    tables, rows = tables_left(place), place.of_rows
    table = rows.known.table(rows.table)
    return bool(tables) and table is not None and tables[0].oid == table.oid


def planned_index(place: Place, table: str, column: str) -> str | None:
    """An index on the column that an earlier step builds; the first by name."""
    then = schema_before(place).table(table)
    return None if then is None else min((i.name for i in then.planned_indexes(column)), default=None)


def _ways(column: str, tables: list[TableInfo], indexed: set[str]) -> str:
    """Which tables are walked how, and why."""
    small = sum(t.pages <= SMALL_PAGES and t.name not in indexed for t in tables)
    striped = len(tables) - len(indexed) - small
    ways = [f"{_tables(striped)} in interleaved stripes, heap-only: no index contains {column}"] * bool(
        striped
    )
    ways += [f"{_tables(small)} of at most {SMALL_PAGES} pages in one stripe"] * bool(small)
    ways += [
        f"in one stripe with vacuum rounds, because an index contains it: {', '.join(sorted(indexed))}"
    ] * bool(indexed)
    return "; ".join(ways)


def _tables(count: int) -> str:
    return f"{count} {'table' if count == 1 else 'tables'}"


def _forecast_of(table: TableInfo, duty: float, *, is_sequential: bool) -> Forecast:
    return forecast(rows=table.rows_estimate, pages=table.pages, duty=duty, is_sequential=is_sequential)


def _is_added(place: Place, column: str) -> bool:
    """An earlier step adds the column to a table of this one, and leaves NULL in its old rows."""
    columns = (schema_before(place).column(table, column) for table in place.tables_of_step)
    return any(c is not None and c.added_by is not None and c.filled_by is None for c in columns)


def soak_text(quiet_s: float | None) -> str:
    """What a soak time adds to a text."""
    return "" if quiet_s is None else f", and a soak time of {short_seconds_text(quiet_s)} after the last row"
