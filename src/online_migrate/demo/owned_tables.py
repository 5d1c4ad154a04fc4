"""The tables that belong to a bot, as the catalog has them: columns, uniques and foreign keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.rows import class_row

Connection = psycopg.Connection[tuple[Any, ...]]

_OWNED: Final = """
    SELECT DISTINCT c.conrelid::regclass::text FROM pg_constraint c
      JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
     WHERE c.contype = 'f' AND c.confrelid = 'bots'::regclass AND a.attname = 'bot_id' ORDER BY 1"""

_COLUMNS: Final = """
    SELECT a.attname AS name, a.atttypid::regtype::text AS type, t.typcategory::text AS category,
           a.attnotnull AS not_null,
           CASE WHEN t.typname = 'varchar' AND a.atttypmod > 4 THEN a.atttypmod - 4 END AS length,
           pg_get_expr(d.adbin, d.adrelid) AS "default",
           a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%%', false) AS
             is_numbered
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     ORDER BY a.attnum"""

_UNIQUES: Final = """
    SELECT (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey))
      FROM pg_index i WHERE i.indrelid = %s::regclass AND i.indisunique AND NOT 0 = ANY (i.indkey)
     ORDER BY i.indexrelid::regclass::text"""

_REFERENCES: Final = """
    SELECT c.conname AS name, c.confrelid::regclass::text AS "to", array_agg(a.attname::text
      ORDER BY k.n) AS columns,
           array_agg(f.attname::text ORDER BY k.n) AS theirs, bool_or(a.attnotnull) AS not_null
      FROM pg_constraint c
     CROSS JOIN LATERAL unnest(c.conkey, c.confkey) WITH ORDINALITY AS k (mine, theirs, n)
      JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.mine
      JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = k.theirs
     WHERE c.contype = 'f' AND c.conrelid = %s::regclass
     GROUP BY c.oid, c.conname, c.confrelid ORDER BY c.conname"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedColumn:
    """A column as far as a row of its table can be made up."""

    name: str
    type: str
    category: str
    not_null: bool
    length: int | None
    default: str | None
    is_numbered: bool
    """the server gives its value: a serial or an identity"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A foreign key: ``columns`` refer to ``theirs`` of the table ``to``."""

    name: str
    to: str
    columns: Sequence[str]
    theirs: Sequence[str]
    not_null: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedTable:
    """A table with what a row of it needs."""

    name: str
    columns: Sequence[OwnedColumn]
    uniques: Sequence[Sequence[str]]
    references: Sequence[Reference]

    @classmethod
    def read(cls, connection: Connection, name: str) -> OwnedTable:
        """Read the table's columns, uniques and foreign keys; raises psycopg.errors.UndefinedTable."""
        return cls(
            name=name,
            columns=tuple(connection.cursor(row_factory=class_row(OwnedColumn)).execute(_COLUMNS, [name])),
            uniques=tuple(tuple(r[0]) for r in connection.execute(_UNIQUES, [name])),
            references=tuple(
                connection.cursor(row_factory=class_row(Reference)).execute(_REFERENCES, [name])
            ),
        )


def read_owned_tables(connection: Connection) -> tuple[str, ...]:
    """Every table with a foreign key bot_id to bots, by name."""
    return tuple(r[0] for r in connection.execute(_OWNED))
