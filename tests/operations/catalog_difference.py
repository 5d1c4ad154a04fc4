"""What a step really changed: the catalog before and after it, as facts that can be compared with declared
effects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import (
    AddsCheck,
    AddsColumn,
    AddsForeignKey,
    CreatesIndex,
    CreatesTable,
    DropsDefault,
    DropsIndex,
    DropsNotNull,
    Effect,
    EndsUnique,
    FillsColumn,
    MakesKey,
    MakesNotNull,
    MakesRow,
    ReadsColumns,
    SetsDefault,
)

Eyes = psycopg.Connection[tuple[Any, ...]]
Fact = tuple[str, ...]

_TABLES = """
SELECT 'table', c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
  AND c.relkind IN ('r', 'p')"""
_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin,
  d.adrelid)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
   AND NOT a.attisdropped"""
_INDEXES = """
SELECT 'index', t.relname, c.relname, i.indisunique::text, (i.indpred IS NOT NULL)::text,
       (SELECT coalesce(string_agg(coalesce(a.attname, '?'), ', ' ORDER BY k), '')
         FROM generate_series(0, i.indnkeyatts - 1) k
          LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k] AND a.attnum > 0)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
 WHERE c.relnamespace = 'public'::regnamespace AND i.indisvalid"""
_CONSTRAINTS = """
SELECT CASE n.contype WHEN 'f' THEN 'foreign key' WHEN 'c' THEN 'check' ELSE 'key' END,
  c.relname, n.conname, pg_get_constraintdef(n.oid)
  FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
 WHERE n.connamespace = 'public'::regnamespace AND n.contype IN ('f', 'c', 'p', 'u')"""
_ACTIONS = {
    "no action": "",
    "restrict": " ON DELETE RESTRICT",
    "cascade": " ON DELETE CASCADE",
    "set null": " ON DELETE SET NULL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Facts that appeared and facts that went."""

    gained: frozenset[Fact]
    lost: frozenset[Fact]


def read_facts(eyes: Eyes) -> frozenset[Fact]:
    """Tables, columns with type, NOT NULL and default, valid indexes, keys, foreign
    keys and checks of the schema.
    """
    facts: list[Fact] = []
    for query in (_TABLES, _INDEXES, _CONSTRAINTS):
        facts += eyes.execute(query).fetchall()
    for table, column, type_, is_not_null, default in eyes.execute(_COLUMNS).fetchall():
        facts.append(("column", table, column, type_))
        facts += [("not null", table, column)] * bool(is_not_null)
        facts += [("default", table, column, default)] * (default is not None)
    return frozenset(facts)


def observed(before: frozenset[Fact], after: frozenset[Fact]) -> Difference:
    return Difference(gained=after - before, lost=before - after)


def declared(effects: Iterable[Effect], before: frozenset[Fact], place: Place, eyes: Eyes) -> Difference:
    """The difference that the effects promise."""
    gained: set[Fact] = set()
    lost: set[Fact] = set()
    for effect in effects:
        if isinstance(effect, EndsUnique):
            lost |= {f for f in before if _is_unique_on(f, effect) or _is_key_on(f, effect)}
        elif isinstance(effect, DropsIndex):
            lost |= {f for f in before if f[:3] == ("index", effect.table, effect.name)}
        elif isinstance(effect, DropsNotNull):
            lost |= {("not null", effect.table, effect.column)}
        elif isinstance(effect, DropsDefault):
            lost |= {f for f in before if f[:3] == ("default", effect.table, effect.column)}
        else:
            gained |= _gained(effect, place, eyes)
            lost |= _replaced(effect, before, gained)
    return Difference(gained=frozenset(gained - before), lost=frozenset(lost))


def _replaced(effect: Effect, before: frozenset[Fact], gained: set[Fact]) -> set[Fact]:
    """A column has one default: the new one ends the old one."""
    if not isinstance(effect, SetsDefault):
        return set()
    return {f for f in before if f[:3] == ("default", effect.table, effect.column)} - gained


def _gained(effect: Effect, place: Place, eyes: Eyes) -> set[Fact]:
    table = effect.table
    if isinstance(effect, CreatesTable):
        return {("table", table)}
    if isinstance(effect, AddsColumn):
        return {("column", table, effect.column, _type_name(eyes, effect.type))}
    if isinstance(effect, SetsDefault):
        value = place.value(effect.default).as_string(None).strip()
        return {("default", table, effect.column, str(effect.default) if effect.is_expression else value)}
    if isinstance(effect, MakesNotNull):
        return {("not null", table, effect.column)}
    if isinstance(effect, CreatesIndex):
        flags = (str(effect.is_unique).lower(), str(effect.has_predicate).lower())
        return {("index", table, effect.name, *flags, ", ".join(c or "?" for c in effect.columns))}
    if isinstance(effect, MakesKey | AddsForeignKey | AddsCheck):
        return {_constraint(effect)}
    assert isinstance(effect, FillsColumn | MakesRow | ReadsColumns), effect  # these change rows, or nothing
    return set()


def _constraint(effect: MakesKey | AddsForeignKey | AddsCheck) -> Fact:
    if isinstance(effect, AddsCheck):
        return ("check", effect.table, effect.name, f"CHECK (({effect.expression}))")
    if isinstance(effect, MakesKey):
        return ("key", effect.table, effect.name, effect.definition)
    leads = f"FOREIGN KEY ({effect.column}) REFERENCES {effect.ref_table}({effect.ref_column})"
    return ("foreign key", effect.table, effect.name, leads + _ACTIONS[effect.on_delete])


def _is_unique_on(fact: Fact, effect: EndsUnique) -> bool:
    is_index = fact[:2] == ("index", effect.table) and fact[3:5] == ("true", "false")
    return is_index and set(fact[5].split(", ")) == set(effect.columns)


def _is_key_on(fact: Fact, effect: EndsUnique) -> bool:
    columns = fact[3].partition("(")[2].partition(")")[0] if fact[:2] == ("key", effect.table) else ""
    return set(columns.split(", ")) == set(effect.columns)


def _type_name(eyes: Eyes, type_: str) -> str:
    """The type as PostgreSQL spells it."""
    with eyes.transaction(force_rollback=True):
        eyes.execute(sql.SQL("CREATE TEMPORARY TABLE spelled (c {})").format(sql.SQL(type_)))
        row = eyes.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'pg_temp.spelled'::regclass AND attname = 'c'"
        ).fetchone()
    assert row is not None
    return str(row[0])


def without_new_tables(difference: Difference, effects: Iterable[Effect]) -> Difference:
    """A created table brings columns, keys and checks of its own: of these only what the effects name is
    compared.
    """
    effects = tuple(effects)
    new = {e.table for e in effects if isinstance(e, CreatesTable)}
    named = {e.name for e in effects if isinstance(e, CreatesIndex)}
    kept = {
        f
        for f in difference.gained
        if f[0] == "table" or f[1] not in new or (f[0] == "index" and f[2] in named)
    }
    return Difference(gained=frozenset(kept), lost=difference.lost)


def columns_of(facts: Iterable[Fact], table: str) -> set[str]:
    return {f[2] for f in facts if f[:2] == ("column", table)}


def parents_of(facts: Iterable[Fact], table: str) -> set[str]:
    """The other tables that its foreign keys reference."""
    keys = {f[3].split(" REFERENCES ")[1].split("(")[0] for f in facts if f[:2] == ("foreign key", table)}
    return keys - {table}


def read_rows(eyes: Eyes, effects: Iterable[Effect]) -> dict[str, str]:
    """A digest of each table's rows, without the columns that the effects add or fill, and without the rows
    that they make.
    """
    effects = tuple(effects)
    made = {e.table for e in effects if isinstance(e, MakesRow | CreatesTable)}
    digests = {}
    for (name,) in eyes.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ).fetchall():
        if name in made:
            continue
        columns = [e.column for e in effects if isinstance(e, AddsColumn | FillsColumn) and e.table == name]
        query = sql.SQL(
            "SELECT md5(coalesce(string_agg(line, ',' ORDER BY line), ''))"
            " FROM (SELECT (to_jsonb(t) - {}::text[])::text AS line FROM {} t) lines"
        ).format(sql.Literal(columns), sql.Identifier(name))
        row = eyes.execute(query).fetchone()
        assert row is not None
        digests[name] = str(row[0])
    return digests


def count_nulls(eyes: Eyes, effect: FillsColumn) -> int:
    row = eyes.execute(
        sql.SQL("SELECT count(*) FROM {} WHERE {} IS NULL").format(
            sql.Identifier(effect.table), sql.Identifier(effect.column)
        )
    ).fetchone()
    assert row is not None
    return int(row[0])
