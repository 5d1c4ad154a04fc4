"""An index that a step builds with CREATE INDEX CONCURRENTLY: its state, its build, and what prevents it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.errors import VerificationFailed
from online_migrate.findings import Finding, Severity
from online_migrate.operations.contract.base import Context, Kind, Place, State, Statement
from online_migrate.operations.shared.duplicates import find_duplicates, read_duplicates, secret_columns
from online_migrate.operations.shared.index_names import read_index
from online_migrate.operations.shared.index_text import definition_on_copy
from online_migrate.operations.shared.steps import need, run_long
from online_migrate.operations.shared.unfinished_index import drop_invalid, nothing_invalid_left
from online_migrate.postgres.catalog import IndexInfo, TableInfo
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.search_path import SearchPath

MANUAL = "https://www.postgresql.org/docs/current/sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"
NAME_BYTES = 63
_STORAGE = re.compile(r" WITH \([^)]*\)(?=$| WHERE )")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewIndex:
    """One index of one table that is not partitioned."""

    place: Place
    name: str
    definition: sql.Composed
    """what follows the table's name in CREATE INDEX"""
    keys: tuple[str, ...]
    """its columns, or keys as CREATE INDEX has them"""
    is_unique: bool
    is_plain: bool
    """a B-tree of columns, and nothing else that an index is made of"""
    compares: tuple[str, ...] = ()
    """columns whose values must differ between any two rows; empty where that cannot be looked for"""
    nulls_not_distinct: bool = False

    @property
    def path(self) -> SearchPath:
        return SearchPath.ROLE if self.is_plain else SearchPath.PLAN

    def create(self) -> Statement:
        """CREATE INDEX CONCURRENTLY."""
        create = sql.SQL("CREATE {}INDEX CONCURRENTLY {} ON {} {}").format(
            sql.SQL("UNIQUE " if self.is_unique else ""),
            sql.Identifier(self.name),
            self.place.sql_table,
            self.definition,
        )
        locks = (need(self.place.schema, self.place.table, LockMode.SHARE_UPDATE_EXCLUSIVE, is_long=True),)
        return Statement(sql=create, kind=Kind.LONG, locks=locks, path=self.path)

    def state(self) -> State:
        """Partial where an interrupted build has left it invalid."""
        if read_index(self.place.known.connection, self.place.schema, self.name) is None:
            return State.ABSENT
        table = self.place.known.table(self.place.table)
        index = None if table is None else table.index(self.name)
        if table is None or index is None or not self._is_as_planned(table, index):
            return State.CONFLICT
        return State.DONE if index.is_valid else State.PARTIAL

    def findings(self) -> list[Finding]:
        """A name that is too long or taken, and rows that keep it from being built."""
        found = []
        if len(self.name.encode()) > NAME_BYTES:
            fact = f"index name {self.name!r} is longer than {NAME_BYTES} bytes; PostgreSQL would cut it"
            found.append(_finding(Severity.STOP, "name_too_long", fact, "give a shorter name"))
        if self.state() is State.CONFLICT:
            found.append(self.conflict())
        return [*found, *self.duplicates()]

    def duplicates(self) -> list[Finding]:
        """Rows that keep it from being built."""
        if not (self.is_unique and self.compares):
            return []
        return find_duplicates(
            self.place, self.name, list(self.compares), nulls_not_distinct=self.nulls_not_distinct
        )

    def conflict(self) -> Finding:
        """Something else has its name."""
        found = read_index(self.place.known.connection, self.place.schema, self.name)
        fact = f"{self.name} already exists with another definition: {found[1] if found else 'not an index'}"
        table = self.place.known.table(self.place.table)
        index = None if table is None else table.index(self.name)
        if index is not None and index.is_deferrable:
            fact += ", of a DEFERRABLE constraint: it serves no ON CONFLICT"
        return _finding(Severity.STOP, "index_conflict", fact, "rename or drop it, or change the plan's name")

    def build(self, context: Context) -> None:
        """Build it, unless it exists; an invalid one is dropped first.

        Raises :class:`VerificationFailed` with the rows where two of them have the same values.
        """
        state = self.state()
        if state is State.DONE:
            return
        if state is State.PARTIAL:
            drop_invalid(context, self.name)
        with nothing_invalid_left(context, self.name):
            try:
                run_long(context, self.create())
            except psycopg.errors.UniqueViolation as error:
                raise VerificationFailed(
                    f"duplicates in {self.place.table} ({', '.join(self.keys)})"
                    f" keep {self.name} from being built: {self._examples(context) or self._detail(error)}",
                    remedy="merge or delete these rows, then run the same command again",
                ) from error

    def _examples(self, context: Context) -> str:
        if not self.compares:
            return ""
        try:
            found = read_duplicates(
                context.work,
                self.place,
                list(self.compares),
                nulls_not_distinct=self.nulls_not_distinct,
            )
        except psycopg.errors.QueryCanceled:  # what the build itself has said must do
            return ""
        return "; ".join(found)

    def _detail(self, error: psycopg.Error) -> str:
        """The server's own words, which quote the key."""
        secret = secret_columns(self.place)
        may_be_shown = not secret or (self.compares and not secret & set(self.compares))
        return str(error.diag.message_detail) if may_be_shown else "(the key is not shown)"

    def _is_as_planned(self, table: TableInfo, index: IndexInfo) -> bool:
        """What the plan says and nothing else: no other order, operator class, collation, predicate, no
        constraint that is deferrable or excludes.  How full its pages are is private.
        """
        if index.is_deferrable or index.is_exclusion or index.is_unique != self.is_unique:
            return False
        how = _how(index.definition)
        if self.is_plain:
            plain = f"btree ({', '.join(self.keys)})".replace('"', "")
            return how.replace('"', "") == plain and index.columns == self.keys
        connection = self.place.known.connection
        wanted = definition_on_copy(connection, table, self.definition, is_unique=self.is_unique)
        return wanted is not None and how == _how(wanted)


def _how(definition: str) -> str:
    """From the access method on."""
    return without_storage(definition).partition(" USING ")[2]


def without_storage(definition: str) -> str:
    """The definition of an index or its constraint, without storage parameters."""
    return _STORAGE.sub("", definition)


def _finding(severity: Severity, code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=severity, code=code, fact=fact, remedy=remedy, manual=MANUAL)
