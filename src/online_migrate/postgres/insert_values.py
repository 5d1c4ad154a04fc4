"""What gives a column its value in an INSERT that does not name the column.

Sources: PostgreSQL manual, INSERT, CREATE DOMAIN, CREATE TABLE (identity, generated), chapter "Triggers".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from online_migrate.postgres.connection import Connection

_SETS: Final = re.compile(
    r"(?i)(?:\bnew\.\"?(?=\w+\"?\s*:=)|(?:^|;|\b(?:begin|then|else|loop)\b)\s*new\.\"?)(\w+)\"?\s*(?::=|=(?!=))"
)
"""in PL/pgSQL ``=`` assigns at the start of a statement only, and compares elsewhere"""
_INTO: Final = re.compile(r"(?i)\binto\s+(?:strict\s+)?((?:[\w.\"]+\s*,\s*)*[\w.\"]+)")
_OF_NEW: Final = re.compile(r"(?i)\bnew\.\"?(\w+)")
_SETS_ALL: Final = re.compile(r"(?i)\bnew\s*:=|\binto\s+(?:strict\s+)?new\b(?!\.)")

_GIVERS: Final = """
WITH RECURSIVE family (oid, depth) AS (
  SELECT %(oid)s::oid, 0
  UNION SELECT i.inhrelid, f.depth + 1 FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
SELECT f.depth, n.nspname, c.relname, g.kind, g.name, g.body
  FROM (SELECT oid, min(depth) AS depth FROM family GROUP BY oid) f
  JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
   SELECT CASE WHEN a.attidentity <> '' THEN 'identity' WHEN a.attgenerated <> '' THEN 'generated'
               WHEN a.atthasdef THEN 'default' ELSE 'domain' END AS kind,
          CASE WHEN a.atthasdef THEN pg_get_expr(d.adbin, d.adrelid)
               ELSE format_type(y.oid, -1) || ' DEFAULT ' || y.typdefault END AS name, '' AS body
     FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = f.oid AND a.attname = %(column)s AND NOT a.attisdropped
      AND (a.atthasdef OR a.attidentity <> '' OR y.typdefault IS NOT NULL)
    UNION ALL
   SELECT 'trigger', t.tgname, CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END
     FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
    WHERE t.tgrelid = f.oid AND t.tgtype & 7 = 7 AND t.tgenabled IN ('A', 'O')) g
 ORDER BY f.depth, n.nspname, c.relname, g.kind, g.name"""
"""tgtype & 7: BEFORE INSERT, for each row.  A column with a default of its own does not get its domain's."""


class Source(Enum):
    """Where the value comes from."""

    DEFAULT = "default"
    DOMAIN = "domain"
    IDENTITY = "identity"
    GENERATED = "generated"
    TRIGGER = "trigger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Giver:
    """One reason why an INSERT without the column still stores a value."""

    source: Source
    schema: str
    table: str
    name: str
    """the default's expression, the domain with its default, or the trigger"""
    is_below: bool
    """of a partition or an inheriting table of the table that was asked for"""

    def __str__(self) -> str:
        return {
            Source.DEFAULT: f"default {self.name}",
            Source.DOMAIN: f"domain {self.name}",
            Source.IDENTITY: "an identity",
            Source.GENERATED: f"generated as {self.name}",
            Source.TRIGGER: f"trigger {self.name}",
        }[self.source]


def columns_set_by(body: str) -> set[str]:
    """The columns that a PL/pgSQL function assigns by ``:=``, ``=`` or INTO; those of a whole record are not
    known.
    """
    into = _OF_NEW.findall(" ".join(_INTO.findall(body)))
    return {*_SETS.findall(body), *into}


def read_givers(connection: Connection, table_oid: int, column: str) -> tuple[Giver, ...]:
    """What gives the column a value in the table, its partitions and its inheriting tables.

    A trigger in another language than PL/pgSQL, or one that assigns NEW as a whole, counts as one that sets
    the column.
    """
    rows = connection.execute(_GIVERS, {"oid": table_oid, "column": column}).fetchall()
    return tuple(
        Giver(source=Source(kind), schema=schema, table=table, name=name or "", is_below=depth > 0)
        for depth, schema, table, kind, name, body in rows
        if kind != Source.TRIGGER.value or _sets(body, column)
    )


def _sets(body: str | None, column: str) -> bool:
    return body is None or column in columns_set_by(body) or _SETS_ALL.search(body) is not None
