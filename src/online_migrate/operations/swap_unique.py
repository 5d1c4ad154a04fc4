"""swap_unique: drop every unique on exactly the old columns, found by its columns, in one lock window."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import psycopg
from psycopg import sql
from pydantic import Field, model_validator

from online_migrate.discovery.dependents import read_dependents
from online_migrate.discovery.uniques import read_uniques
from online_migrate.errors import VerificationFailed
from online_migrate.findings import (
    Finding,
    Severity,
)
from online_migrate.operations.contract.base import (
    Context,
    Kind,
    Operation,
    Place,
    State,
    Statement,
)
from online_migrate.operations.contract.descendants import Descendants
from online_migrate.operations.contract.effects import Effect, EndsUnique
from online_migrate.operations.schema_before import schema_before
from online_migrate.operations.shared.lost_traits import lost_traits
from online_migrate.operations.shared.steps import need, run_window
from online_migrate.operations.shared.succeeded import assert_succeeded, missing_successor
from online_migrate.plan.model import Phase, Strict
from online_migrate.postgres.catalog import ConstraintInfo, IndexInfo, TableInfo
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.search_path import SearchPath
from online_migrate.postgres.sqlstate import NOT_AS_PROMISED

MANUAL = "https://www.postgresql.org/docs/current/sql-dropindex.html"
BUILD_FIRST = "build the new unique and set its columns NOT NULL first, then run the same command again"

_ASSERT = """BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_index i, LATERAL (
        SELECT pg_catalog.array_agg(a.attname::text) AS columns,
               pg_catalog.bool_and(coalesce(a.attname = ANY ({old}) OR a.attnotnull AND NOT EXISTS (
                 SELECT FROM pg_catalog.pg_constraint n WHERE n.conrelid = i.indrelid AND n.contype = 'n'
                    AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated), false)) AS are_not_null
          FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
            AND a.attnum > 0) key
     WHERE i.indexrelid = pg_catalog.to_regclass({index}) AND i.indrelid = pg_catalog.to_regclass({table})
       AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indisready AND i.indislive
       AND i.indpred IS NULL
       AND key.columns @> {old} AND i.indnkeyatts > pg_catalog.cardinality({old})
       AND (key.are_not_null OR coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)))
  THEN RAISE EXCEPTION '%', {message} USING ERRCODE = {state};
  END IF;
END"""
"""The window may wait for half an hour after the precondition was read; under its lock it is asked once more.
"""

_REMEDIES = {
    "replica identity": "ALTER TABLE … REPLICA IDENTITY USING INDEX another one, or FULL; then check again",
    "look-ups": (
        "where the application has such look-ups, build a plain index on these columns first (create_index)"
    ),
    "view": "read its definition: it may need the owner's column",
}


class SwapUniqueParams(Strict):
    """From the columns of the old unique to the new unique index."""

    table: str
    """table of both uniques"""
    from_: list[str] = Field(alias="from", default_factory=list)
    """columns of the old unique; every unique index and constraint on exactly these columns is dropped"""
    index: str | None = Field(default=None, min_length=1)
    """instead of from: name of an old unique that is partial or over an expression, or of an exclusion
    constraint; only this one is dropped"""
    to: str
    """name of the new unique index, on these columns and more; an earlier step builds it"""

    @model_validator(mode="after")
    def _has_one_old(self) -> SwapUniqueParams:
        if bool(self.from_) == (self.index is not None):
            raise ValueError("give exactly one of from (columns of the old unique) and index (its name)")
        return self

    @property
    def old(self) -> str:
        """What is dropped, for people."""
        return self.index or f"({', '.join(self.from_)})"


class SwapUnique(Operation[SwapUniqueParams]):
    """Drop the old unique once the new one keeps duplicates out.

    What it does: under its lock it reads once more that the new unique index is valid, covers the whole
    table, and that its further columns are NOT NULL. Then it drops every unique index and constraint on
    exactly the old columns, whatever its name; with `index`, only the one of that name, which may be partial,
    over expressions, or an exclusion, if the new one has its keys and more over the same rows. `check` lists
    what depends on the old unique: foreign keys, ON CONFLICT targets, look-ups, views, functions.

    Locks: ACCESS EXCLUSIVE on the table and on each index that is dropped, in one lock window.

    On a crash: the drops commit together or not at all; the next run reads the catalog.

    How to undo: build the old unique again with CREATE UNIQUE INDEX CONCURRENTLY, as long as no two rows
    share a value.
    """

    name = "swap_unique"
    phase = Phase.CONTRACT
    summary = "drop every unique on exactly the old columns, once the new unique index is valid"
    descendants = Descendants.APART
    partitions_way = (
        "name its partitions instead; a unique of the root itself is dropped with the root's, manually"
    )
    Params: ClassVar[type[SwapUniqueParams]] = SwapUniqueParams

    def title(self, params: SwapUniqueParams) -> str:
        return f"swap_unique {params.index or ', '.join(params.from_)}"

    def targets(self, params: SwapUniqueParams) -> tuple[str | None, ...]:
        return (params.table,)

    def effects(self, place: Place, params: SwapUniqueParams) -> tuple[Effect, ...]:
        effect = EndsUnique(
            table=place.table, columns=tuple(params.from_), successor=params.to, index=params.index or ""
        )
        return (effect,)

    def statements(self, place: Place, params: SwapUniqueParams) -> tuple[Statement, ...]:
        table = None if place.catalog is None else place.known.table(place.table)
        if table is None:
            columns = sql.SQL(", ").join(map(sql.Identifier, params.from_))
            old = sql.SQL("every unique on exactly ({})").format(columns)
            if params.index is not None:
                old = sql.SQL("the unique {}").format(sql.Identifier(params.index))
            note = sql.SQL("-- drops {} of {}, as the catalog then has them").format(old, place.sql_table)
            locks = (need(place.schema, place.table, LockMode.ACCESS_EXCLUSIVE),)
            return (Statement(sql=note, kind=Kind.WINDOW, locks=locks),)
        drops = tuple(self._drop(place, table, index) for index in self._old(table, params))
        return (self._assertion(place, params), *drops) if drops else ()

    def _assertion(self, place: Place, params: SwapUniqueParams) -> Statement:
        """In the window, before the drops: the new unique keeps duplicates out, or nothing is dropped."""
        if params.index is not None:
            return self._assert_named(place, params, params.index)
        columns = f"({', '.join(params.from_)}) and more, all NOT NULL"
        said = (
            f"under the lock, {params.to} is no valid unique index over the whole of {place.table} on"
            f" {columns}"
        )
        body = sql.SQL(_ASSERT).format(
            old=sql.SQL("{}::text[]").format(sql.Literal(list(params.from_))),
            index=sql.Literal(sql.Identifier(place.schema, params.to).as_string(None)),
            table=sql.Literal(place.sql_table.as_string(None)),
            message=sql.Literal(said),
            state=sql.Literal(NOT_AS_PROMISED),
        )
        check = sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))
        locks = (need(place.schema, place.table, LockMode.ACCESS_EXCLUSIVE),)
        return Statement(
            sql=check,
            path=SearchPath.OURS,
            kind=Kind.WINDOW,
            locks=locks,
            note="is the new unique still there? asked under the lock",
        )

    def _assert_named(self, place: Place, params: SwapUniqueParams, old: str) -> Statement:
        said = (
            f"under the lock, {params.to} is no valid unique index of {place.table} on the keys of {old} and"
            " more, all NOT NULL, over the same rows"
        )
        check = assert_succeeded(
            old=sql.Identifier(place.schema, old),
            new=sql.Identifier(place.schema, params.to),
            message=said,
            sqlstate=NOT_AS_PROMISED,
        )
        locks = (need(place.schema, place.table, LockMode.ACCESS_EXCLUSIVE),)
        note = "does the new unique take the old one's place? asked under the lock"
        return Statement(sql=check, path=SearchPath.OURS, kind=Kind.WINDOW, locks=locks, note=note)

    def _drop(self, place: Place, table: TableInfo, index: IndexInfo) -> Statement:
        if index.constraint is not None:
            drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                place.sql_table, sql.Identifier(index.constraint)
            )
        else:
            drop = sql.SQL("DROP INDEX {}").format(sql.Identifier(table.schema, index.name))
        locks = tuple(need(place.schema, n, LockMode.ACCESS_EXCLUSIVE) for n in (table.name, index.name))
        return Statement(sql=drop, kind=Kind.WINDOW, locks=locks)

    def _old(self, table: TableInfo, params: SwapUniqueParams) -> tuple[IndexInfo, ...]:
        if params.index is None:
            return table.uniques_on_exactly(params.from_)
        index = table.index(params.index)
        return () if index is None else (index,)

    def preflight(self, place: Place, params: SwapUniqueParams) -> list[Finding]:
        table = place.known.table(place.table)
        if table is None:
            return []
        old = self._old(table, params)
        findings = [
            self._in_the_way(place, key, old)
            for key in place.known.referencing(table)
            if key.index_oid in {i.oid for i in old}
        ]
        primary = [c for c in table.constraints if c.kind == "p" and c.index_oid in {i.oid for i in old}]
        if primary:
            fact = f"the primary key of {place.table} is {params.index or f'on exactly {params.old}'}"
            findings.append(
                Finding(
                    severity=Severity.STOP,
                    code="primary_key",
                    fact=fact,
                    remedy="a primary key is not swapped: change the plan",
                )
            )
        findings += self._dependents(place, params, table, old) + self._unbuilt(place, params)
        return findings + lost_traits(place, table, old, params.to)

    def _dependents(
        self, place: Place, params: SwapUniqueParams, table: TableInfo, old: tuple[IndexInfo, ...]
    ) -> list[Finding]:
        """What depends on the old unique besides foreign keys: what would break at once stops, the rest is to
        be read.
        """
        if not old:
            return []
        new = self._new_columns(place, params)
        columns = params.from_ or self._columns_of(place, table, old)
        dependents = read_dependents(
            place.known.connection,
            table,
            columns,
            [i.oid for i in old],
            [c for c in new if c not in columns],
            self._first_columns_planned(place),
        )
        what = f"the unique of {place.table} on ({', '.join(columns)})"
        return [
            Finding(
                severity=Severity.STOP if dependent.is_fatal else Severity.WARN,
                code=f"depends_{dependent.kind.replace(' ', '_').replace('-', '_')}",
                fact=f"{dependent.kind} {dependent.name} depends on {what}: {dependent.reason}",
                remedy=_REMEDIES.get(dependent.kind, "let it name the owner, too, before this stage"),
                manual=MANUAL,
            )
            for dependent in dependents
        ]

    def _columns_of(self, place: Place, table: TableInfo, old: tuple[IndexInfo, ...]) -> list[str]:
        """By way of expressions, too."""
        named = {i.name for i in old}
        found = read_uniques(place.known.connection, [table.oid])
        return sorted({c for u in found if u.name in named and u.table == table.name for c in u.columns})

    def _first_columns_planned(self, place: Place) -> list[str]:
        """The first columns of the indexes that earlier steps build on the table."""
        table = schema_before(place).table(place.table)
        indexes = () if table is None else table.indexes.values()
        return [str(i.columns[0]) for i in indexes if i.built_by is not None]

    def _new_columns(self, place: Place, params: SwapUniqueParams) -> list[str]:
        """Of the new unique, as it exists or as an earlier step builds it; empty where neither is so."""
        table = schema_before(place).table(place.table)
        index = None if table is None else table.indexes.get(params.to)
        return [] if index is None or not index.is_unique else [str(c) for c in index.columns]

    def _new_is_odd(self, place: Place, params: SwapUniqueParams) -> str:
        """Why the new unique replaces no unique over the whole table; empty where it does."""
        table = schema_before(place).table(place.table)
        index = None if table is None else table.indexes.get(params.to)
        if index is None or not index.is_unique or not (index.has_predicate or None in index.columns):
            return ""
        what = "is partial" if index.has_predicate else "has an expression among its keys"
        return f"{params.to} {what}, so that it does not keep all duplicates out"

    def _unbuilt(self, place: Place, params: SwapUniqueParams) -> list[Finding]:
        """A swap whose new unique no step builds would stop in the middle of the night."""
        new = self._new_columns(place, params)
        if params.index is not None:
            odd = missing_successor(place, old=params.index, new=params.to)
        else:
            odd = self._new_is_odd(place, params)
        if not odd and (params.index is not None or set(params.from_) < set(new)):
            return []
        fact = odd or (
            (
                f"no unique index {params.to} on ({', '.join(params.from_)}) and more exists, and no earlier"
                " step builds it"
            )
            if not new
            else f"{params.to} is on ({', '.join(new)}), which is not ({', '.join(params.from_)}) and more"
        )
        remedy = "build it by a create_index with unique: true in an earlier stage"
        return [
            Finding(
                severity=Severity.STOP, code="new_unique_missing", fact=fact, remedy=remedy, manual=MANUAL
            )
        ]

    def _in_the_way(self, place: Place, key: ConstraintInfo, old: tuple[IndexInfo, ...]) -> Finding:
        index = next(i.name for i in old if i.oid == key.index_oid)
        fact = (
            f"foreign key {key.name} of {key.table} references {index}, the unique of {place.table} that"
            " is to be dropped"
        )
        remedy = f"let {key.table} refer to the primary key, or drop that foreign key; then check again"
        return Finding(
            severity=Severity.STOP, code="foreign_key_on_unique", fact=fact, remedy=remedy, manual=MANUAL
        )

    def state(self, place: Place, params: SwapUniqueParams) -> State:
        table = place.known.table(place.table)
        if table is None:
            return State.ABSENT
        return (
            State.DONE
            if not self._old(table, params) and self._new_problem(table, params) is None
            else State.ABSENT
        )

    def _new_problem(self, table: TableInfo, params: SwapUniqueParams) -> str | None:
        """Why the new unique does not yet keep duplicates out (postgres-facts 15)."""
        index = table.index(params.to)
        if params.index is not None and index is not None and index.is_unique and index.is_valid:
            return None  # the rest is asked under the lock
        if index is None or not index.is_unique or index.has_predicate:
            return f"there is no unique index {params.to} over the whole of {table.name}"
        if not set(params.from_) < set(index.columns):
            held = ", ".join(map(str, index.columns))
            return (
                f"unique index {params.to} is on ({held}), which is not ({', '.join(params.from_)}) and more"
            )
        if not index.is_valid:
            return f"unique index {params.to} is not valid"
        if index.is_deferrable:
            return f"{params.to} is a DEFERRABLE constraint, which lets duplicates into an open transaction"
        nullable = [str(c) for c in index.columns if c is None or not table.columns[c].is_not_null]
        if nullable and not index.nulls_not_distinct and set(nullable) - set(params.from_):
            return (
                f"{', '.join(nullable)} of {params.to} can be NULL, so that it does not keep duplicates out"
            )
        return None

    def execute(self, context: Context, params: SwapUniqueParams) -> int:
        table = context.fresh_catalog().table(context.place.table)
        problem = (
            f"table {context.place.table} was dropped" if table is None else self._new_problem(table, params)
        )
        if problem is not None:
            raise VerificationFailed(
                f"the old unique stays: {problem}",
                remedy=BUILD_FIRST,
            )
        statements = self.statements(replace(context.place, catalog=context.fresh_catalog()), params)
        try:
            if statements:
                run_window(context, statements)
        except psycopg.Error as error:
            if error.sqlstate != NOT_AS_PROMISED:
                raise
            raise VerificationFailed(
                f"the old unique stays: {error.diag.message_primary}", remedy=BUILD_FIRST
            ) from error
        return 0

    def verify(self, place: Place, params: SwapUniqueParams) -> list[Finding]:
        if self.state(place, params) is State.DONE:
            return []
        table = place.known.table(place.table)
        left = () if table is None else self._old(table, params)
        fact = (
            f"{place.table}: {params.index or f'a unique on exactly {params.old}'} exists:"
            f" {', '.join(i.name for i in left) or params.to + ' is not'}"
        )
        remedy = "an application that creates its schema at start creates it again: fix that, then drop it"
        return [Finding(severity=Severity.STOP, code="unique_back", fact=fact, remedy=remedy, manual=MANUAL)]
