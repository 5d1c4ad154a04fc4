"""create_tables: new tables from an SQL file, one lock window a table, with the owner and the grants of a table that is there."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from psycopg import sql

from online_migrate.errors import PlanError
from online_migrate.operations.base import (
    Context,
    Finding,
    Kind,
    Operation,
    Place,
    Severity,
    State,
    Statement,
)
from online_migrate.operations.steps import need, run_window
from online_migrate.plan.model import Phase, Strict
from online_migrate.plan.sql_file import SqlKind, SqlStatement, read_sql, split_sql
from online_migrate.postgres.connection import Sql
from online_migrate.postgres.locks import LockMode
from online_migrate.postgres.scratch import compare_with_ddl

MANUAL = "https://www.postgresql.org/docs/current/sql-createtable.html"


class CreateTablesParams(Strict):
    """A file of CREATE TABLE and CREATE INDEX statements, names without a schema."""

    file: str
    owner_and_grants_of: str | None = None
    """the table whose owner and grants the new ones get; by default the first table outside the file that it refers to"""


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

    @property
    def model(self) -> str | None:
        """Whose owner and grants are taken over."""
        if self.owner_and_grants_of is not None:
            return self.owner_and_grants_of
        own = set(self.tables)
        return next((r for s in self.split() for r in s.references if r not in own), None)


class CreateTables(Operation[CreateTablesParams]):
    """CREATE TABLE … REFERENCES takes SHARE ROW EXCLUSIVE on the parent: writers queue, so it needs a window like any ALTER."""

    name = "create_tables"
    phase = Phase.EXPAND
    shorthand = "file"
    summary = "make new tables from an SQL file, one short lock window a table"
    Params: ClassVar[type[CreateTablesParams]] = CreateTablesParams

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
            if statement.schema is not None:
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

    def statements(self, place: Place, params: CreateTablesParams) -> tuple[Statement, ...]:
        loaded = self._loaded(params)
        made = loaded.of(place.table)
        parents = [r for s in made for r in s.references if r != place.table]
        locks = tuple(need(place.schema, p, LockMode.SHARE_ROW_EXCLUSIVE) for p in dict.fromkeys(parents))
        found = [Statement(sql=sql.SQL(s.text), kind=Kind.WINDOW, locks=locks) for s in made]
        if place.catalog is not None and loaded.model is not None:
            found += [Statement(sql=s, kind=Kind.WINDOW) for s in self._rights(place, loaded.model, made)]
        return tuple(found)

    def _rights(self, place: Place, model: str, made: tuple[SqlStatement, ...]) -> list[Sql]:
        """Owner and grants of the model, for the table; of the model's sequences, for the table's."""
        connection = place.known.connection
        rows = connection.execute(
            """SELECT pg_get_userbyid(c.relowner), CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
                      a.privilege_type, a.is_grantable,
                      c.relkind = 'S', c.relowner = a.grantee, c.relowner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
                 FROM pg_class c LEFT JOIN LATERAL aclexplode(c.relacl) a ON true
                WHERE c.oid = to_regclass(%(model)s) OR (c.relkind = 'S' AND EXISTS (
                      SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.refobjid = to_regclass(%(model)s) AND d.deptype IN ('a', 'i')))
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
            who = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
            found += [
                sql.SQL("GRANT {} ON {} {} TO {}{}").format(
                    sql.SQL(privilege),
                    sql.SQL("SEQUENCE" if is_sequence else "TABLE"),
                    target,
                    who,
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
        if place.known.table(place.table) is None:
            return self._missing_parents(place, params)
        differences = self._differences(place, params)
        if not differences:
            return []
        fact = f"table {place.table} is there already with another definition: {'; '.join(differences)}"
        return [
            Finding(
                severity=Severity.STOP,
                code="table_conflict",
                fact=fact,
                remedy="rename or drop it, or change the plan's DDL",
                manual=MANUAL,
            )
        ]

    def _missing_parents(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        loaded = self._loaded(params)
        outside = {r for s in loaded.of(place.table) for r in s.references if r not in loaded.tables}
        return [
            Finding(
                severity=Severity.STOP,
                code="table_missing",
                fact=f"{place.table} refers to {name}, which is not there",
                remedy="check the DDL",
            )
            for name in sorted(outside)
            if place.known.table(name) is None
        ]

    def _differences(self, place: Place, params: CreateTablesParams) -> tuple[str, ...]:
        made = self._loaded(params).of(place.table)
        parents = dict.fromkeys(r for s in made for r in s.references if r != place.table)
        there = [p for p in parents if place.known.table(p) is not None]
        return compare_with_ddl(
            place.known.connection,
            schema=place.schema,
            table=place.table,
            ddl=[s.text for s in made],
            refers_to=there,
        )

    def state(self, place: Place, params: CreateTablesParams) -> State:
        if place.known.table(place.table) is None:
            return State.ABSENT
        return State.CONFLICT if self._differences(place, params) else State.DONE

    def execute(self, context: Context, params: CreateTablesParams) -> int:
        run_window(context, self.statements(context.place, params))
        return 0

    def verify(self, place: Place, params: CreateTablesParams) -> list[Finding]:
        differences = (
            ("it is gone",) if place.known.table(place.table) is None else self._differences(place, params)
        )
        if not differences:
            return []
        fact = f"table {place.table} is not as the plan made it: {'; '.join(differences)}"
        return [
            Finding(
                severity=Severity.STOP,
                code="table_changed",
                fact=fact,
                remedy="find out who changed it",
                manual=MANUAL,
            )
        ]
