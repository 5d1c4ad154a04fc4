"""Read-only introspection: what tables, columns, indexes and constraints there are.

Source: PostgreSQL manual, chapter "System Catalogs".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import Connection
from online_migrate.postgres.sqlstate import ErrorClass, error_class
from online_migrate.postgres.types import read_type


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnInfo:
    name: str
    type: str
    """as format_type() spells it: ``integer``, ``character varying(255)``"""
    is_not_null: bool
    """no row is NULL: a NOT NULL … NOT VALID (from 18 on) is none yet, though attnotnull says so"""
    default: str | None
    number: int
    equals_in: str = "pg_catalog"
    """the schema of its type's equality operator; another one for types of extensions, such as citext"""

    @property
    def equals_sql(self) -> sql.Composed:
        """``=`` for two values of the column, by its schema, whatever the search_path."""
        return sql.SQL("OPERATOR({}.=)").format(sql.Identifier(self.equals_in))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    oid: int
    name: str
    table: str
    columns: tuple[str | None, ...]
    """key columns in order; None for an expression"""
    included: tuple[str, ...]
    is_unique: bool
    is_valid: bool
    has_predicate: bool
    nulls_not_distinct: bool
    is_summarizing: bool
    """its entries are for ranges of pages, so an update of its columns may be heap-only: BRIN from 16 on
    (manual, storage-hot)"""
    method: str
    definition: str
    constraint: str | None
    """the constraint that owns it, if any"""
    bytes: int
    is_deferrable: bool = False
    """of a DEFERRABLE constraint: it refuses a row at the end of the statement, or of the transaction, and
    serves no ON CONFLICT"""
    is_exclusion: bool = False
    """of an exclusion constraint"""

    @property
    def can_be_referenced(self) -> bool:
        """By a foreign key: then an update of its columns locks the row as a DELETE does, and inserts of
        children wait.
        """
        return self.is_unique and not self.has_predicate and None not in self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstraintInfo:
    oid: int
    name: str
    kind: str
    """p primary key, u unique, f foreign key, c check, x exclusion, n not null (from 18 on)"""
    table: str
    schema: str
    columns: tuple[str, ...]
    is_valid: bool
    definition: str
    ref_schema: str | None
    ref_table: str | None
    ref_columns: tuple[str, ...]
    on_delete: str
    """a no action, r restrict, c cascade, n set null, d set default"""
    index_oid: int
    is_inherited: bool = False
    """PostgreSQL's copy, on a partition or for one, of a foreign key of a partitioned table"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    oid: int
    schema: str
    name: str
    kind: str
    """r table, p partitioned, f foreign, v view"""
    owner: str
    relfilenode: int
    rows_estimate: int
    """reltuples; an estimate, 0 where never analysed"""
    pages: int
    """by the file's size now, not by relpages"""
    bytes: int
    """heap with TOAST"""
    index_bytes: int
    descendants: tuple[tuple[str, str], ...] = ()
    """(schema, name) of its partitions, or of the tables that inherit from it, on every level"""
    ancestors: tuple[tuple[str, str], ...] = ()
    """(schema, name) of the tables that it is a partition of, or inherits from, on every level"""
    columns: dict[str, ColumnInfo] = field(default_factory=dict)
    indexes: tuple[IndexInfo, ...] = ()
    constraints: tuple[ConstraintInfo, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def foreign_keys(self) -> tuple[ConstraintInfo, ...]:
        return tuple(c for c in self.constraints if c.kind == "f")

    def index(self, name: str) -> IndexInfo | None:
        return next((i for i in self.indexes if i.name == name), None)

    def uniques_on_exactly(self, columns: Iterable[str]) -> tuple[IndexInfo, ...]:
        """Every whole unique index on just these columns, in any order, constraint or not."""
        wanted = set(columns)
        return tuple(
            i for i in self.indexes if i.is_unique and not i.has_predicate and set(i.columns) == wanted
        )


_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_get_userbyid(c.relowner), c.relfilenode::int8,
       greatest(c.reltuples, 0)::int8,
       CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END,
       CASE WHEN c.relkind = 'r' THEN pg_table_size(c.oid) ELSE 0 END,
       CASE WHEN c.relkind = 'r' THEN pg_indexes_size(c.oid) ELSE 0 END,
       c.relhassubclass, EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND (%(names)s::text[] IS NULL
   OR c.relname = ANY (%(names)s))
 ORDER BY c.relname"""

# What few tables have is read apart: to plan the query takes the server longer than to run it.
_BELOW = """
WITH RECURSIVE heir (top, oid) AS (
  SELECT i.inhparent, i.inhrelid FROM pg_inherits i WHERE i.inhparent = ANY (%(oids)s::oid[])
  UNION SELECT heir.top, i.inhrelid FROM pg_inherits i JOIN heir ON i.inhparent = heir.oid)
SELECT heir.top::int8, n.nspname, h.relname
  FROM heir JOIN pg_class h ON h.oid = heir.oid JOIN pg_namespace n ON n.oid = h.relnamespace
 ORDER BY h.oid"""

_ABOVE = """
WITH RECURSIVE ancestor (below, oid) AS (
  SELECT i.inhrelid, i.inhparent FROM pg_inherits i WHERE i.inhrelid = ANY (%(oids)s::oid[])
  UNION SELECT ancestor.below, i.inhparent FROM pg_inherits i JOIN ancestor ON i.inhrelid = ancestor.oid)
SELECT ancestor.below::int8, n.nspname, a.relname
  FROM ancestor JOIN pg_class a ON a.oid = ancestor.oid JOIN pg_namespace n ON n.oid = a.relnamespace
 ORDER BY a.oid"""

_COLUMNS = """
SELECT a.attrelid::int8, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conrelid = a.attrelid
         AND n.contype = 'n'
                                       AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated),
       pg_get_expr(d.adbin, d.adrelid), a.attnum::int, a.atttypid::int8
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
   ORDER BY a.attrelid, a.attnum"""

_EQUALS_IN = """
SELECT t.oid::int8, min(n.nspname)
  FROM pg_type t JOIN pg_opclass k ON k.opcintype = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
  JOIN pg_am am ON am.oid = k.opcmethod AND am.amname = 'btree'
  JOIN pg_amop o ON o.amopfamily = k.opcfamily AND o.amopstrategy = 3
   AND o.amoplefttype = k.opcintype AND o.amoprighttype = k.opcintype
  JOIN pg_operator q ON q.oid = o.amopopr JOIN pg_namespace n ON n.oid = q.oprnamespace
 WHERE t.oid = ANY (%(types)s::oid[]) AND k.opcdefault GROUP BY t.oid"""
_FIRST_OWN_TYPE = 16384
"""the OIDs below are the server's own types (FirstNormalObjectId of PostgreSQL's access/transam.h)"""

_INDEXES = """
SELECT i.indrelid::int8, i.indexrelid::int8, c.relname, t.relname,
       ARRAY(SELECT a.attname FROM generate_series(0, i.indnkeyatts - 1) k
               LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
                 AND a.attnum > 0 ORDER BY k),
       ARRAY(SELECT a.attname FROM generate_series(i.indnkeyatts::int, i.indnatts - 1) k
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] ORDER BY k),
       i.indisunique, i.indisvalid AND i.indisready AND i.indislive, i.indpred IS NOT NULL,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false),
       am.amname = 'brin' AND current_setting('server_version_num')::int >= 160000, am.amname,
         pg_get_indexdef(i.indexrelid),
       (SELECT con.conname FROM pg_constraint con WHERE con.conrelid = i.indrelid
         AND con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x') LIMIT 1),
       pg_relation_size(i.indexrelid), NOT i.indimmediate, i.indisexclusion
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_am am ON am.oid = c.relam
 WHERE i.indrelid = ANY (%(oids)s::oid[]) ORDER BY c.relname"""

_CONSTRAINTS = """
SELECT con.conrelid::int8, con.oid::int8, con.conname, con.contype::text, c.relname, n.nspname,
       ARRAY(SELECT a.attname FROM unnest(con.conkey) WITH ORDINALITY k (num, pos)
               JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num ORDER BY k.pos),
       con.convalidated, pg_get_constraintdef(con.oid), rn.nspname, r.relname,
       ARRAY(SELECT a.attname FROM unnest(con.confkey) WITH ORDINALITY k (num, pos)
               JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num ORDER BY k.pos),
       con.confdeltype::text, con.conindid::int8, con.conparentid <> 0
  FROM pg_constraint con JOIN pg_class c ON c.oid = con.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_class r ON r.oid = con.confrelid LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE {which} AND con.contype <> 't' ORDER BY con.conname"""
_OF_TABLES = _CONSTRAINTS.format(which="con.conrelid = ANY (%(oids)s::oid[])")
_TO_TABLE = _CONSTRAINTS.format(which="con.confrelid = %(oid)s AND con.contype = 'f'")
_FOREIGN_KEYS = _CONSTRAINTS.format(which="con.contype = 'f'")


class Catalog:
    """What the database's catalog says, read once per table and kept until :meth:`forget`.

    Make a new one, or forget, wherever the world may have changed: it is a reading, not a memory.
    """

    def __init__(self, connection: Connection, schema: str = "public") -> None:
        self.connection = connection
        self.schema = schema
        self._tables: dict[str, TableInfo | None] = {}
        self._types: dict[str, str] = {}
        self._others: dict[str, Catalog] = {}

    def in_schema(self, schema: str) -> Catalog:
        """The same reading of another schema."""
        return (
            self
            if schema == self.schema
            else self._others.setdefault(schema, Catalog(self.connection, schema))
        )

    def forget(self, *names: str) -> None:
        """Read these tables again when they are asked for; without names everything."""
        for name in names:
            self._tables.pop(name, None)
        if not names:
            self._tables.clear()
            self._others.clear()
            self._types.clear()

    def type_name(self, name: str) -> str:
        """The type with its schema, see :func:`read_type`; the name itself where the server refuses it."""
        if name not in self._types:
            try:
                self._types[name] = read_type(self.connection, name)
            except psycopg.Error as error:
                if error_class(error) is not ErrorClass.PROGRAM:
                    raise
                self._types[name] = name
        return self._types[name]

    def table(self, name: str) -> TableInfo | None:
        """The table, or None where there is none of that name in the plan's schema."""
        if name not in self._tables:
            self.prefetch([name])
        return self._tables[name]

    def prefetch(self, names: Iterable[str]) -> None:
        """Read many tables with four queries."""
        wanted = [n for n in dict.fromkeys(names) if n not in self._tables]
        if wanted:
            found = _read(self.connection, self.schema, wanted)
            self._tables.update({n: found.get(n) for n in wanted})

    def all_tables(self) -> dict[str, TableInfo]:
        """Every relation of the schema with columns."""
        found = _read(self.connection, self.schema, None)
        self._tables.update(found)
        return found

    def foreign_keys(self) -> tuple[ConstraintInfo, ...]:
        """Every foreign key in the database that is not the system's."""
        return tuple(_constraint(r) for r in self.connection.execute(_FOREIGN_KEYS).fetchall())

    def referencing(self, table: TableInfo) -> tuple[ConstraintInfo, ...]:
        """The foreign keys of any table that lead to ``table``."""
        rows = self.connection.execute(_TO_TABLE, {"oid": table.oid}).fetchall()
        return tuple(_constraint(r) for r in rows)


def _read(connection: Connection, schema: str, names: list[str] | None) -> dict[str, TableInfo]:
    tables = connection.execute(_TABLES, {"schema": schema, "names": names}).fetchall()
    oids = [t[0] for t in tables]
    below = _read_names(connection, _BELOW, [t[0] for t in tables if t[10]])
    above = _read_names(connection, _ABOVE, [t[0] for t in tables if t[11]])
    columns: dict[int, dict[str, ColumnInfo]] = {}
    rows = connection.execute(_COLUMNS, {"oids": oids}).fetchall()
    types = {row[6] for row in rows if row[6] >= _FIRST_OWN_TYPE}
    equals_in: dict[int, str] = (
        dict(connection.execute(_EQUALS_IN, {"types": list(types)}).fetchall()) if types else {}
    )
    for oid, name, type_, not_null, default, number, type_oid in rows:
        columns.setdefault(oid, {})[name] = ColumnInfo(
            name=name,
            type=type_,
            is_not_null=not_null,
            default=default,
            number=number,
            equals_in=equals_in.get(type_oid, "pg_catalog"),
        )
    indexes: dict[int, list[IndexInfo]] = {}
    for row in connection.execute(_INDEXES, {"oids": oids}):
        indexes.setdefault(row[0], []).append(_index(row))
    constraints: dict[int, list[ConstraintInfo]] = {}
    for row in connection.execute(_OF_TABLES, {"oids": oids}):
        constraints.setdefault(row[0], []).append(_constraint(row))
    return {
        t[2]: TableInfo(
            oid=t[0],
            schema=t[1],
            name=t[2],
            kind=t[3],
            owner=t[4],
            relfilenode=t[5],
            rows_estimate=t[6],
            pages=t[7],
            bytes=t[8],
            index_bytes=t[9],
            descendants=below.get(t[0], ()),
            ancestors=above.get(t[0], ()),
            columns=columns.get(t[0], {}),
            indexes=tuple(indexes.get(t[0], ())),
            constraints=tuple(constraints.get(t[0], ())),
        )
        for t in tables
    }


def _read_names(
    connection: Connection, query: str, oids: list[int]
) -> dict[int, tuple[tuple[str, str], ...]]:
    """By table: (schema, name) of those below it, or above it; nothing is asked for no table."""
    found: dict[int, tuple[tuple[str, str], ...]] = {}
    for oid, schema, name in connection.execute(query, {"oids": oids}).fetchall() if oids else ():
        found[oid] = (*found.get(oid, ()), (schema, name))
    return found


def _index(row: tuple[Any, ...]) -> IndexInfo:
    return IndexInfo(
        oid=row[1],
        name=row[2],
        table=row[3],
        columns=tuple(row[4]),
        included=tuple(row[5]),
        is_unique=row[6],
        is_valid=row[7],
        has_predicate=row[8],
        nulls_not_distinct=row[9],
        is_summarizing=row[10],
        method=row[11],
        definition=row[12],
        constraint=row[13],
        bytes=row[14],
        is_deferrable=row[15],
        is_exclusion=row[16],
    )


def _constraint(row: tuple[Any, ...]) -> ConstraintInfo:
    return ConstraintInfo(
        oid=row[1],
        name=row[2],
        kind=row[3],
        table=row[4],
        schema=row[5],
        columns=tuple(row[6]),
        is_valid=row[7],
        definition=row[8],
        ref_schema=row[9],
        ref_table=row[10],
        ref_columns=tuple(row[11]),
        on_delete=row[12],
        index_oid=row[13],
        is_inherited=row[14],
    )
