"""create_tables: create tables from an SQL file, one lock window a table, with owner and grants of an
existing table.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from psycopg import sql

from online_migrate.backfill.hazards.rights import read_parent_hazards
from online_migrate.errors import PlanError
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
from online_migrate.operations.contract.effects import CreatesIndex, CreatesTable, Effect
from online_migrate.operations.shared.steps import need, run_window
from online_migrate.plan.model import Phase, Strict
from online_migrate.plan.sql_file import SqlKind, SqlStatement, read_sql, split_sql
from online_migrate.postgres.connection import Sql
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.rehearsal import Trial, TrialFailed, try_ddl
from online_migrate.postgres.search_path import SearchPath

MANUAL = "https://www.postgresql.org/docs/current/sql-createtable.html"


class CreateTablesParams(Strict):
    """A file of CREATE TABLE and CREATE INDEX statements; names have no schema."""

    file: str
    """SQL file, relative to the plan: CREATE TABLE, and CREATE INDEX on tables of this file"""
    owner_and_grants_of: str | None = None
    """existing table whose owner and grants the new tables get; by default the first table outside the file
    that the file references
    """


class LoadedCreateTablesParams(CreateTablesParams):
    """With the file's content, so that the fingerprint sees it."""

    text: str

    def split(self) -> tuple[SqlStatement, ...]:
        return split_sql(self.text, path=Path(self.file))

    @property
    def tables(self) -> tuple[str, ...]:
        """In the order of the file."""
        return tuple(str(s.table) for s in self.split() if s.kind is SqlKind.CREATE_TABLE)

    def of(self, table: str) -> tuple[SqlStatement, ...]:
        """The statements that make one table: itself, then its indexes."""
        return tuple(s for s in self.split() if s.table == table)

    def locks_of(self, table: str) -> dict[str, LockMode]:
        """What creating the table locks of others: parents of its foreign keys, and the tables above it.

        A partition takes over the foreign keys of its root.
        """
        found: dict[str, LockMode] = {}
        for statement in self.of(table):
            found |= {r: LockMode.SHARE_ROW_EXCLUSIVE for r in statement.references if r != table}
            for above in statement.descends_from:
                if statement.is_partition:
                    found = self.locks_of(above) | found
                mode = (
                    LockMode.ACCESS_EXCLUSIVE if statement.is_partition else LockMode.SHARE_UPDATE_EXCLUSIVE
                )
                found[above] = mode
        return found

    @property
    def model(self) -> str | None:
        """Whose owner and grants are taken over."""
        if self.owner_and_grants_of is not None:
            return self.owner_and_grants_of
        own = set(self.tables)
        return next((r for s in self.split() for r in s.references if r not in own), None)


class CreateTables(Operation[CreateTablesParams]):
    """Create the tables of an SQL file, each with its indexes in one lock window.

    What it does: runs the CREATE TABLE and CREATE INDEX statements of the file, then gives the table the
    owner and the grants of an existing table. `check` tries the DDL in a scratch schema, in a transaction
    that it rolls back. A table that exists already with the same definition is adopted; one with another
    definition is a conflict.

    Locks: SHARE ROW EXCLUSIVE on each table that a foreign key of the new table references: writers of that
    table wait for the length of the lock window. A table without foreign keys locks nothing that exists.

    On a crash: a table and its indexes commit together. The next run creates the tables that do not exist
    yet.

    How to undo: DROP TABLE, as long as no other table references it. It locks referenced tables with ACCESS
    EXCLUSIVE.
    """

    name = "create_tables"
    phase = Phase.EXPAND
    shorthand = "file"
    summary = "create tables from an SQL file, one short lock window a table"
    Params: ClassVar[type[CreateTablesParams]] = CreateTablesParams

    def takes_owner_of(self, params: CreateTablesParams) -> str | None:
        return params.model if isinstance(params, LoadedCreateTablesParams) else None

    def title(self, params: CreateTablesParams) -> str:
        return f"create_tables {params.file}"

    def load(self, params: CreateTablesParams, folder: Path) -> CreateTablesParams:
        text, path = read_sql(folder, params.file)
        made: set[str] = set()
        for statement in split_sql(text, path=path):
            where = f"{path}:{statement.line}"
            if statement.kind not in (SqlKind.CREATE_TABLE, SqlKind.CREATE_INDEX) or statement.is_concurrent:
                remedy = (
                    "this file may hold only CREATE TABLE, and CREATE INDEX (not CONCURRENTLY) on its tables"
                )
                raise PlanError("neither CREATE TABLE nor a plain CREATE INDEX", where=where, remedy=remedy)
            named = (*statement.references, *statement.made_from)
            if statement.schema is not None or any("." in name for name in named):
                raise PlanError(
                    "a name with a schema",
                    where=where,
                    remedy="leave the schema out: the plan's `schema` says where",
                )
            if statement.kind is SqlKind.CREATE_INDEX and statement.table not in made:
                raise PlanError(
                    f"an index on {statement.table}, which this file does not make",
                    where=where,
                    remedy="use create_index for it",
                )
            _ensure_own_table(statement, made, where)
            made.add(str(statement.table))
        if not made:
            raise PlanError("makes no table", where=str(path), remedy="write at least one CREATE TABLE")
        return LoadedCreateTablesParams(
            file=params.file, owner_and_grants_of=params.owner_and_grants_of, text=text
        )

    def _loaded(self, params: CreateTablesParams) -> LoadedCreateTablesParams:
        assert isinstance(params, LoadedCreateTablesParams)  # the loader makes these
        return params

    def targets(self, params: CreateTablesParams) -> tuple[str | None, ...]:
        return self._loaded(params).tables

    def effects(self, place: Place, params: CreateTablesParams) -> tuple[Effect, ...]:
        found: list[Effect] = []
        for statement in self._loaded(params).of(place.table):
            if statement.kind is SqlKind.CREATE_TABLE:
                found.append(
                    CreatesTable(
                        table=place.table,
                        columns=statement.columns,
                        has_all_columns=statement.has_all_columns,
                        references=statement.references,
                        made_from=statement.made_from,
                    )
                )
            else:
                found.append(
                    CreatesIndex(
                        table=place.table,
                        name=statement.index or "",
                        columns=statement.index_columns,
                        is_unique=statement.is_unique,
                        has_predicate=statement.has_predicate,
                    )
                )
        return tuple(found)

    def statements(self, place: Place, params: CreateTablesParams) -> tuple[Statement, ...]:
        loaded = self._loaded(params)
        made = loaded.of(place.table)
        locks = tuple(need(place.schema, name, mode) for name, mode in loaded.locks_of(place.table).items())
        found = [
            Statement(sql=sql.SQL(s.text), kind=Kind.WINDOW, locks=locks, path=SearchPath.PLAN) for s in made
        ]
        if place.catalog is not None and loaded.model is not None:
            found += [Statement(sql=s, kind=Kind.WINDOW) for s in self._rights(place, loaded.model, made)]
        return tuple(found)

    def _rights(self, place: Place, model: str, made: tuple[SqlStatement, ...]) -> list[Sql]:
        """Owner and grants of the model, for the table; of the model's sequences, for the table's."""
        connection = place.known.connection
        rows = connection.execute(
            """SELECT pg_get_userbyid(c.relowner), CASE WHEN a.grantee = 0 THEN NULL
              ELSE pg_get_userbyid(a.grantee) END,
                      a.privilege_type, a.is_grantable,
                      c.relkind = 'S', c.relowner = a.grantee, c.relowner <> (SELECT oid FROM pg_roles
                        WHERE rolname = current_user)
                 FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) a ON true
                WHERE c.oid = to_regclass(%(model)s) OR (c.relkind = 'S' AND EXISTS (
                      SELECT FROM pg_depend d WHERE d.objid = c.oid
                        AND d.refobjid = to_regclass(%(model)s) AND d.deptype IN ('a', 'i')))
                ORDER BY c.relkind = 'S', 2, 3""",
            {"model": sql.Identifier(place.schema, model).as_string(None)},
        ).fetchall()
        sequences = self._serial_sequences(place, made)
        found: list[Sql] = []
        if rows and rows[0][6]:
            found.append(
                sql.SQL("ALTER TABLE {} OWNER TO {}").format(place.sql_table, sql.Identifier(rows[0][0]))
            )
        for _, grantee, privilege, grantable, is_sequence, is_owner, _ in rows:
            if privilege is None or is_owner:
                continue
            targets = sequences if is_sequence else [place.sql_table]
            role = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
            found += [
                sql.SQL("GRANT {} ON {} {} TO {}{}").format(
                    sql.SQL(privilege),
                    sql.SQL("SEQUENCE" if is_sequence else "TABLE"),
                    target,
                    role,
                    sql.SQL(" WITH GRANT OPTION" if grantable else ""),
                )
                for target in targets
            ]
        return found

    def _serial_sequences(self, place: Place, made: tuple[SqlStatement, ...]) -> list[sql.Identifier]:
        """The sequences that serial columns of the new table make, named by PostgreSQL's rule."""
        columns = [c for s in made for c in s.serial_columns]
        return [sql.Identifier(place.schema, f"{place.table}_{column}_seq") for column in columns]

    def preflight(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        exists = place.known.table(place.table) is not None
        against = (
            []
            if exists
            else [
                *self._missing_parents(place, params),
                *(self._owner(place, params) or self._parent_rights(place, params)),
            ]
        )
        if against:
            return against
        try:
            trial = self._try(place, params)
        except TrialFailed as error:
            fact = f"the server refuses the DDL of table {place.table}: {error}"
            return [
                _stop(
                    "ddl_refused",
                    fact,
                    f"correct {params.file}; it is tried in a scratch schema, and rolled back",
                )
            ]
        if exists and trial.differences:
            fact = (
                f"table {place.table} already exists with another definition: {'; '.join(trial.differences)}"
            )
            return [_stop("table_conflict", fact, "rename or drop it, or change the plan's DDL")]
        if not exists and trial.taken:
            fact = f"names that the DDL of table {place.table} would give are taken: {'; '.join(trial.taken)}"
            return [_stop("name_conflict", fact, "rename or drop what has them, or change the plan's DDL")]
        return []

    def _missing_parents(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        loaded = self._loaded(params)
        outside = {r for r in self._parents(loaded, place.table) if r not in loaded.tables}
        return [
            _stop("table_missing", f"{place.table} references {name}, which does not exist", "check the DDL")
            for name in sorted(outside)
            if place.known.table(name) is None
        ]

    def _parent_rights(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        """REFERENCES for the foreign keys, and SELECT for the copies with which the DDL is tried."""
        parents = (place.known.table(name) for name in self._parents(self._loaded(params), place.table))
        return [
            replace(finding, severity=Severity.STOP)
            for parent in parents
            if parent is not None
            for finding in read_parent_hazards(place.known.connection, parent, None)
        ]

    def _owner(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        """A table is given only to a role that we are a member of."""
        model = self._loaded(params).model
        table = None if model is None else place.known.table(model)
        if table is None:
            return []
        row = place.known.connection.execute(
            "SELECT pg_has_role(current_user, %s, 'MEMBER'), quote_ident(current_user), quote_ident(%s)",
            [table.owner, table.owner],
        ).fetchone()
        assert row is not None  # a SELECT without FROM has one row
        is_member, user, owner = row
        fact = f"{user} may not give {place.table} to {owner}, who owns {table.name}"
        return [] if is_member else [_stop("owner_right", fact, f"GRANT {owner} TO {user}")]

    def _parents(self, loaded: LoadedCreateTablesParams, table: str) -> tuple[str, ...]:
        """The tables that its DDL names: by a foreign key, LIKE, INHERITS, PARTITION OF."""
        named = (r for s in loaded.of(table) for r in (*s.references, *s.made_from))
        return tuple(dict.fromkeys(name for name in named if name != table))

    def _try(self, place: Place, params: CreateTablesParams) -> Trial:
        """In a scratch schema: existing parents as copies, those that the file makes above by its own
        DDL.
        """
        loaded = self._loaded(params)
        above = loaded.tables[: loaded.tables.index(place.table)]
        there, made = dict[str, None](), [place.table]
        for table in (place.table, *reversed(above)):
            if table in made:
                taken = {name for s in loaded.of(table) for name in s.made_from}
                for parent in self._parents(loaded, table):
                    is_own = parent in above and parent in taken  # its columns and its partition key count
                    if place.known.table(parent) is not None and not is_own and parent not in made:
                        there[parent] = None
                    elif parent not in made:
                        made.append(parent)
        return try_ddl(
            place.known.connection,
            schema=place.schema,
            table=place.table,
            ddl=[s.text for t in (*above, place.table) if t in made for s in loaded.of(t)],
            refers_to=there,
        )

    def state(self, place: Place, params: CreateTablesParams) -> State:
        exists = place.known.table(place.table) is not None
        try:
            trial = self._try(place, params)
        except TrialFailed:  # preflight says it
            return State.CONFLICT if exists else State.ABSENT
        if exists:
            return State.CONFLICT if trial.differences else State.DONE
        return State.CONFLICT if trial.taken else State.ABSENT

    def execute(self, context: Context, params: CreateTablesParams) -> int:
        if context.fresh_catalog().table(context.place.table) is None:
            run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        try:
            is_dropped = place.known.table(place.table) is None
            differences = ("it was dropped",) if is_dropped else self._try(place, params).differences
        except TrialFailed as error:
            differences = (f"its DDL is refused now: {error}",)
        if not differences:
            return []
        fact = f"table {place.table} is not as the plan made it: {'; '.join(differences)}"
        return [_stop("table_changed", fact, "find out who changed it")]


def _ensure_own_table(statement: SqlStatement, made: Collection[str], where: str) -> None:
    """Raise :class:`PlanError` for a table that would end with the session, or that would lock a live one."""
    if statement.is_temporary:
        raise PlanError(
            "a temporary table ends with the session that creates it",
            where=where,
            remedy="leave TEMPORARY out",
        )
    for parent in statement.descends_from:
        if parent not in made:
            raise PlanError(
                f"a partition of, or a table that inherits from, {parent}, which this file does not create:"
                " PostgreSQL would lock it, and may scan its default partition under ACCESS EXCLUSIVE",
                where=where,
                remedy=f"create the table by LIKE {parent}, and attach it in a maintenance window",
            )


def _stop(code: str, fact: str, remedy: str) -> Finding:
    return Finding(severity=Severity.STOP, code=code, fact=fact, remedy=remedy, manual=MANUAL)
