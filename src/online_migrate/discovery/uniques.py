"""What can refuse a row because another one exists: uniques, whole, partial and over expressions, primary
keys, exclusion constraints, of a table and of every table below it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import postgast
from postgast import find_nodes
from postgast import pg_query_pb2 as ast

from online_migrate.postgres.connection import Connection

_UNIQUES = """
WITH RECURSIVE family (root, oid) AS (
  SELECT o, o FROM unnest(%(oids)s::oid[]) o
  UNION SELECT f.root, i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
SELECT f.root::int8, n.nspname, t.relname, c.relname, con.contype::text, x.indisprimary,
       x.indpred IS NOT NULL,
       ARRAY(SELECT pg_get_indexdef(x.indexrelid, k, false) FROM generate_series(1, x.indnkeyatts) k
              ORDER BY k),
       ARRAY(SELECT o.oprname::text FROM unnest(con.conexclop) WITH ORDINALITY e (oid, pos)
               JOIN pg_operator o ON o.oid = e.oid ORDER BY e.pos),
       coalesce(pg_get_constraintdef(con.oid), pg_get_indexdef(x.indexrelid)),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0
                AND NOT a.attisdropped),
       (SELECT jsonb_object_agg(a.attname, pg_get_expr(d.adbin, d.adrelid)) FROM pg_attribute a
          JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = t.oid AND a.attgenerated <> ''),
       (SELECT count(*) > 0 FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (x.indkey)
           AND (a.atthasdef AND a.attgenerated = '' OR a.attidentity <> '' OR a.atttypid = 'uuid'::regtype))
  FROM family f JOIN pg_class t ON t.oid = f.oid JOIN pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class c ON c.oid = x.indexrelid
  LEFT JOIN pg_constraint con ON con.conindid = x.indexrelid AND con.conrelid = t.oid
   AND con.contype IN ('p', 'u', 'x')
 WHERE (x.indisunique OR x.indisexclusion) AND x.indislive
   AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = x.indexrelid)
 ORDER BY array_position(%(oids)s::oid[], f.root), t.relname, c.relname"""
"""An index that is attached to one of its table's parent says nothing of its own."""

_TRAITS = """
SELECT i.indexrelid::int8, array_remove(ARRAY[
         CASE WHEN NOT i.indimmediate THEN 'DEFERRABLE' END,
         CASE WHEN (to_jsonb(i) ->> 'indnullsnotdistinct')::bool THEN 'NULLS NOT DISTINCT' END], NULL)
       || ARRAY(SELECT trait FROM generate_series(0, i.indnkeyatts - 1) k
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
                  JOIN pg_opclass o ON o.oid = i.indclass[k]
                  LEFT JOIN pg_collation l ON l.oid = i.indcollation[k] AND l.oid <> a.attcollation,
                LATERAL (VALUES
                  (CASE WHEN NOT o.opcdefault THEN 'operator class ' || o.opcname || ' of ' || a.attname END),
                  ('COLLATE ' || quote_ident(l.collname) || ' of ' || a.attname),
                  (CASE i.indoption[k] WHEN 1 THEN 'order DESC NULLS LAST' WHEN 2 THEN 'order NULLS FIRST'
                     WHEN 3 THEN 'order DESC' END || ' of ' || a.attname)) t (trait)
                WHERE trait IS NOT NULL)
       || ARRAY(SELECT 'INCLUDE ' || a.attname FROM generate_series(i.indnkeyatts::int, i.indnatts - 1) k
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k])
  FROM pg_index i WHERE i.indexrelid = ANY (%s::oid[])"""
"""indoption: 1 is DESC, 2 NULLS FIRST; DESC alone is both (manual, 11.4)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unique:
    """One of them."""

    root: int
    """OID of the table that was asked for"""
    schema: str
    table: str
    """its own table: the one that was asked for, or one below it"""
    name: str
    """of the index, and of its constraint"""
    kind: str
    """primary key, exclusion constraint, unique constraint, unique index, partial unique index, …"""
    columns: frozenset[str]
    """that its keys are made of, by way of expressions and generated columns too"""
    compared: frozenset[str]
    """those of them that are compared by equality: rows that differ in one of them do not collide"""
    generated: Mapping[str, frozenset[str]]
    """its generated columns, and what each is made of"""
    definition: str
    has_made_key: bool
    """a primary key whose value the database, or a generator of UUIDs, makes"""

    def __str__(self) -> str:
        where = self.definition.partition(" USING ")[2] if "INDEX" in self.definition else self.definition
        made = "".join(f"; {name} is made of {', '.join(sorted(of))}" for name, of in self.generated.items())
        return f"{self.name} ({self.kind} of {self.table}: {where.removeprefix('btree ')}{made})"


def read_uniques(connection: Connection, tables: Iterable[int]) -> tuple[Unique, ...]:
    """Those of the tables (OIDs) and of every partition and inheriting table below them."""
    rows = connection.execute(_UNIQUES, {"oids": list(tables)}).fetchall()
    return tuple(map(_unique, rows))


def read_traits(connection: Connection, indexes: Iterable[int]) -> dict[int, frozenset[str]]:
    """What is special about each index (OID) besides its columns: ``INCLUDE note``, ``DEFERRABLE``, …"""
    rows = connection.execute(_TRAITS, [list(indexes)]).fetchall()
    return {int(oid): frozenset(traits) for oid, traits in rows}


def columns_in(expression: str, known: Collection[str]) -> frozenset[str]:
    """The columns of ``known`` that an expression of the server reads; all of them by a whole row."""
    try:
        references = list(find_nodes(postgast.parse(f"SELECT {expression}"), ast.ColumnRef))
    except postgast.PgQueryError:  # a newer server's syntax: rather a column too many
        return frozenset(c for c in known if re.search(rf"(?<!\w){re.escape(c)}(?!\w)", expression))
    last = [r.fields[-1] for r in references]
    if any(field.HasField("a_star") for field in last):
        return frozenset(known)
    return frozenset(field.string.sval for field in last) & frozenset(known)


def _unique(row: tuple[Any, ...]) -> Unique:
    root, schema, table, name, constraint, is_primary, is_partial, keys, operators, definition, *more = row
    known, expressions, has_made_key = more
    made = {column: columns_in(text, known) for column, text in (expressions or {}).items()}
    read = [columns_in(key, known) for key in keys]
    reached = [columns.union(*(made.get(c, frozenset()) for c in columns)) for columns in read]
    equal = [not operators or operators[n] == "=" for n in range(len(keys))]
    own = frozenset[str]().union(*read)
    is_expression = not all(map(_is_name, keys))
    return Unique(
        root=root,
        schema=schema,
        table=table,
        name=name,
        kind=_kind(constraint, is_partial=is_partial, is_expression=is_expression),
        columns=frozenset[str]().union(*reached),
        compared=frozenset[str]().union(*(c for c, is_equal in zip(reached, equal, strict=True) if is_equal)),
        generated={c: of for c, of in made.items() if c in own},
        definition=definition,
        has_made_key=is_primary and has_made_key,
    )


def _is_name(key: str) -> bool:
    """Is it a column, as the server quotes it?"""
    return re.fullmatch(r'[^\W\d]\w*|"([^"]|"")+"', key) is not None


def _kind(constraint: str | None, *, is_partial: bool, is_expression: bool) -> str:
    named = {"p": "primary key", "u": "unique constraint", "x": "exclusion constraint"}
    words = ["partial"] * is_partial + [named.get(constraint or "", "unique index")]
    return " ".join(words) + " over an expression" * is_expression
