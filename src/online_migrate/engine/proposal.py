"""A plan for a database: what gives every row an owner, from the catalog alone.  Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from online_migrate.discovery.owner_paths import OwnerPath, owner_paths
from online_migrate.discovery.reach import paths_through_other_schemas, tables_referencing
from online_migrate.engine.proposal_uniques import UniqueProposal, propose_uniques
from online_migrate.errors import UsageError
from online_migrate.figures import count_text
from online_migrate.plan.mistakes import did_you_mean
from online_migrate.postgres.catalog import Catalog, ConstraintInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.names import NAME_BYTES, fits

_SCHEMAS = """
SELECT n.nspname FROM pg_namespace n
 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'online_migrate') ORDER BY 1"""
_OWNER_COLUMNS = """
SELECT a.attname, a.attidentity <> '' OR a.attgenerated <> '' FROM pg_attribute a
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the operator asks for, all in ``schema``."""

    column: str
    references: str
    roots: tuple[str, ...]
    exclude: tuple[str, ...]
    schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A table of the set, and where its rows take their owner from."""

    name: str
    path: OwnerPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the plan is made of."""

    wanted: Wanted
    database: str
    key: str
    """primary key of the table of owners"""
    type: str
    where: Mapping[str, str | int | bool]
    values: Mapping[str, str | int | bool]
    """of the owner of all rows so far"""
    owned: tuple[Owned, ...]
    """parents before their children"""
    uniques: tuple[UniqueProposal, ...]
    questions: tuple[str, ...]
    """about uniques that no step can swap"""
    left_out: tuple[tuple[str, str], ...]
    """table, reason"""
    relations: frozenset[str]
    """names that are taken in the schema"""

    @property
    def summary(self) -> str:
        """What was found, in one line."""
        return (
            f"tables that get {self.wanted.column}: {count_text(len(self.owned))};"
            f" uniques to swap: {count_text(len(self.uniques))};"
            f" tables left out: {count_text(len(self.left_out))};"
            " read each QUESTION, then run `online-migrate check`"
        )


def propose(connection: Connection, wanted: Wanted) -> Proposal:
    """Read the catalog and build the proposal; raises :class:`UsageError` for names that do not fit it."""
    if not wanted.column.strip() or not fits(wanted.column) or "<" in wanted.column:
        raise UsageError(
            f"--column {wanted.column!r} cannot be the name of a column",
            remedy=f"give a name of 1 to {NAME_BYTES} bytes without `<`, for example tenant_id",
        )
    world = _World(connection, wanted)
    owners = world.need("--references", wanted.references)
    key = _key_of(owners)
    world.type = owners.columns[key].type
    for root in wanted.roots:
        world.need("--root", root)
    for name in wanted.exclude:
        world.need("--exclude", name)
    if owners.name in wanted.roots or (both := sorted({*wanted.exclude} & {*wanted.roots})):
        name = owners.name if owners.name in wanted.roots else both[0]
        raise UsageError(
            f"{name} is given as --root and as {'--references' if name == owners.name else '--exclude'}",
            remedy="a root holds rows that belong to an owner: give another table as --root",
        )
    paths = world.paths()
    owned = tuple(
        Owned(name=name, path=path)
        for name, path in paths.items()
        if wanted.column not in world.here[name].columns
    )
    if not owned:
        raise UsageError(
            f"{', '.join(wanted.roots)} and every table that references it have a column {wanted.column}",
            remedy="there is nothing to add; choose another --column or --root",
        )
    tables = [world.here[o.name] for o in owned]
    uniques, questions = propose_uniques(connection, tables, set(paths), wanted.column, world.keys)
    where, values = _first_row(connection, owners, key)
    return Proposal(
        wanted=wanted,
        database=connection.info.dbname,
        key=key,
        type=owners.columns[key].type,
        where=where,
        values=values,
        owned=owned,
        uniques=uniques,
        questions=questions,
        left_out=tuple(world.left_out(paths)),
        relations=frozenset(world.here) | {i.name for t in world.here.values() for i in t.indexes},
    )


class _World:
    """What the catalog holds of every schema."""

    def __init__(self, connection: Connection, wanted: Wanted) -> None:
        self.wanted = wanted
        self.type = ""
        """of the owners' key, once it is known"""
        schemas = [name for (name,) in connection.execute(_SCHEMAS).fetchall()]
        if wanted.schema not in schemas:
            raise UsageError(
                f"there is no schema {wanted.schema} in database {connection.info.dbname}"
                f"{did_you_mean(wanted.schema, schemas)}",
                remedy="give the schema of the tables: --schema NAME",
            )
        read = {name: Catalog(connection, name).all_tables() for name in schemas}
        self.here = read[wanted.schema]
        self.everywhere = {(s, t.name): t for s, tables in read.items() for t in tables.values()}
        self.keys = tuple(k for k in Catalog(connection, wanted.schema).foreign_keys() if not k.is_inherited)
        self.top = {
            t.name: a.name
            for t in self.here.values()
            for a in self._partitioned_above(t)
            if not self._partitioned_above(a) and a.schema == wanted.schema
        }

    def need(self, option: str, name: str) -> TableInfo:
        """The table that an option names."""
        schema, table = self.wanted.schema, self.here.get(name)
        if table is None:
            elsewhere = [s for s, n in self.everywhere if n == name]
            hint = f"; {elsewhere[0]}.{name} exists" if elsewhere else did_you_mean(name, self._closest(name))
            remedy = f"give --schema {elsewhere[0]}" if elsewhere else f"name a table of schema {schema}"
            if option == "--references" and not elsewhere:
                remedy += (
                    f', or create it first: CREATE TABLE "{schema}"."{name}"'
                    " (id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY, name text NOT NULL UNIQUE)"
                )
            raise UsageError(
                f"{option} {name}: there is no such table in schema {schema}{hint}", remedy=remedy
            )
        if table.kind not in "rp":
            kind = {"v": "view", "m": "materialized view", "f": "foreign table"}[table.kind]
            raise UsageError(f"{option} {name} is a {kind}", remedy="name a table")
        if above := self._partitioned_above(table):
            whole = self.top.get(name, above[0].full_name)
            raise UsageError(
                f"{option} {name}: it is a partition of {whole}; a plan changes the whole table",
                remedy=f"give {option} {whole}",
            )
        reason = self._unfit(table)
        if reason and option != "--exclude":
            raise UsageError(
                f"{option} {name}: {reason.removeprefix('QUESTION: ')}", remedy="name another table"
            )
        return table

    def _closest(self, name: str) -> list[str]:
        """At most ten names for a message."""
        tables = sorted(n for n, t in self.here.items() if t.kind in "rp")
        return tables if len(tables) <= 10 or "'" in did_you_mean(name, tables) else tables[:10]

    def _partitioned_above(self, table: TableInfo) -> list[TableInfo]:
        above = [self.everywhere[a] for a in table.ancestors if a in self.everywhere]
        return [a for a in above if a.kind == "p"]

    def _unfit(self, table: TableInfo) -> str:
        """Why no step of a plan can name the table; empty where it can."""
        names = [table.name, *(name for _, name in table.descendants)]
        if odd := next((n for n in names if "." in n or "<" in n or not n.strip()), None):
            return f"a plan cannot name {odd!r}: it has a dot, a `<`, or nothing but spaces"
        own = table.columns.get(self.wanted.column)
        if own is not None and self.type and own.type != self.type:
            return f"QUESTION: it has a column {own.name} of type {own.type}, not {self.type}"
        if above := self._partitioned_above(table):
            return f"it is a partition of {above[0].full_name}"
        if table.ancestors or (table.descendants and table.kind != "p"):
            return "QUESTION: it inherits, or is inherited from; add a step for each table of the family"
        if table.kind == "p":
            below = [self.everywhere[d] for d in table.descendants if d in self.everywhere]
            if other := next((d for d in below if d.schema != table.schema), None):
                return f"QUESTION: its partition {other.full_name} is in another schema; a plan changes one"
            if foreign := next((d for d in below if d.kind == "f"), None):
                return f"QUESTION: its partition {foreign.name} is a foreign table"
        return ""

    def _may_be_null(self, key: ConstraintInfo) -> bool:
        columns = self.here[key.table].columns
        return not all(columns[c].is_not_null for c in key.columns)

    def _inside(self) -> Iterator[ConstraintInfo]:
        """Foreign keys between tables that steps can name."""
        skipped = {self.wanted.references, *self.wanted.exclude}
        for key in self.keys:
            ends = (key.table, self.top.get(str(key.ref_table), str(key.ref_table)))
            if key.schema == key.ref_schema == self.wanted.schema and not skipped.intersection(ends):
                infos = [self.here.get(end) for end in ends]
                if all(i is not None and i.kind in "rp" and not self._unfit(i) for i in infos):
                    yield key

    def paths(self) -> dict[str, OwnerPath]:
        """Of each table that reaches a root, parents first."""
        return owner_paths(self.wanted.roots, tuple(self._inside()), self._may_be_null, self.top)

    def left_out(self, paths: Mapping[str, OwnerPath]) -> Iterator[tuple[str, str]]:
        """Every other table of the schema, and those of other schemas that reference the set."""
        reached = {
            table: root
            for root in reversed(self.wanted.roots)
            for table in tables_referencing(root, self.keys, self.wanted.schema)
        }
        for name, table in sorted(self.here.items()):
            if table.kind not in "rpf" or (table.kind in "rf" and name in self.top):
                continue
            if name not in paths:
                yield name, self._reason(table, paths, reached)
            elif self.wanted.column in table.columns:
                yield name, f"it has a column {self.wanted.column}"
        skipped = {self.wanted.references, *self.wanted.exclude}
        for path in paths_through_other_schemas(paths, self.keys, self.wanted.schema, skipped):
            yield (
                path[0],
                (f"QUESTION: {' -> '.join(path)}; a plan changes one schema, so it needs another plan"),
            )

    def _reason(self, table: TableInfo, paths: Iterable[str], reached: Mapping[str, str]) -> str:
        if table.name == self.wanted.references:
            return "it holds the owners"
        if table.name in self.wanted.exclude:
            return "as --exclude says"
        if table.kind == "f":
            return "it is a foreign table"
        if reason := self._unfit(table):
            return reason
        if table.name in reached:
            return f"it reaches {reached[table.name]} only by way of tables that are left out"
        lead = f"no foreign key leads from it to {' or '.join(self.wanted.roots)}"
        users = sorted({k.table for k in self.keys if k.ref_table == table.name and k.table in set(paths)})
        if not users:
            return lead
        return (
            f"{lead}. QUESTION: {', '.join(users)} reference it; rows of one owner each? --root {table.name}"
        )


def _key_of(owners: TableInfo) -> str:
    """The one column of its primary key, as a step can reference it."""
    key = next((c.columns for c in owners.constraints if c.kind == "p"), ())
    if len(key) != 1:
        found = f"its primary key is ({', '.join(key)})" if key else "it has no primary key"
        raise UsageError(
            f"--references {owners.name}: {found}", remedy="an owner needs a primary key of one column"
        )
    if not all(part.replace("_", "a").isalnum() for part in (owners.name, key[0])):
        raise UsageError(
            f"--references {owners.name}: add_foreign_key cannot name {owners.name}.{key[0]}",
            remedy="give a table and a primary key whose names have only letters, digits and _",
        )
    return key[0]


def _first_row(
    connection: Connection, owners: TableInfo, key: str
) -> tuple[dict[str, str | int | bool], dict[str, str | int | bool]]:
    """What finds the owner of all rows so far, and what else a new row needs; both are to be edited."""
    made = {name for name, is_made in connection.execute(_OWNER_COLUMNS, [owners.oid]).fetchall() if is_made}
    single = [i.columns[0] for i in owners.indexes if i.is_unique and len(i.columns) == 1 and i.columns[0]]
    by = next((c for c in single if c != key and _is_text(owners, c) and c not in made), key)
    needed = [
        c.name
        for c in owners.columns.values()
        if c.is_not_null and c.default is None and c.name not in {*made, by, key}
    ]
    if by != key and key not in made and owners.columns[key].default is None:
        needed.insert(0, key)
    return {by: _sample(owners.columns[by].type)}, {c: _sample(owners.columns[c].type) for c in needed}


def _is_text(table: TableInfo, column: str) -> bool:
    return table.columns[column].type.startswith(("text", "character varying", "public.citext"))


def _sample(type_: str) -> str | int | bool:
    """A value that a column of the type takes."""
    if type_ in ("smallint", "integer", "bigint", "real", "double precision") or type_.startswith("numeric"):
        return 1
    if type_ == "boolean":
        return False
    if type_.startswith(("timestamp", "date")):
        return "2000-01-01"
    given = {"uuid": "00000000-0000-0000-0000-000000000001", "json": "{}", "jsonb": "{}", "character(1)": "f"}
    return given.get(type_, "first")
