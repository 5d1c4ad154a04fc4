"""What depends on a unique that is to be dropped, besides foreign keys: code that names its columns, and
look-ups that it serves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from online_migrate.discovery.statements import read_statements
from online_migrate.postgres.catalog import TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.redact import redact

_VIEWS = """
SELECT DISTINCT v.oid::regclass::text
  FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s AND a.attname = ANY (%(columns)s)
 GROUP BY v.oid HAVING count(DISTINCT a.attname) = cardinality(%(columns)s::text[]) ORDER BY 1"""

_VIEW_NAMES = """
SELECT DISTINCT v.relname::text FROM pg_depend d
  JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
  JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
 WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = %s"""

_FUNCTIONS = """
SELECT p.oid::regprocedure::text,
       CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_get_functiondef(p.oid) END, p.prokind = 'p'
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'online_migrate')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                      AND d.deptype = 'e')
   AND (EXISTS (SELECT FROM unnest(%(words)s::text[]) w WHERE strpos(lower(p.prosrc), lower(w)) > 0)
        OR p.prosqlbody IS NOT NULL AND EXISTS (
          SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(table)s)) ORDER BY 1"""
"""The body of a BEGIN ATOMIC is no text: its dependencies are the catalog's."""

_RULES = """
SELECT quote_ident(r.rulename) || ' on ' || r.ev_class::regclass, pg_get_ruledef(r.oid)
  FROM pg_rewrite r WHERE r.rulename <> '_RETURN' AND EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
       AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %s) ORDER BY 1"""

_DEPENDING = """
SELECT DISTINCT CASE d.classid WHEN 'pg_proc'::regclass THEN 'function' WHEN 'pg_rewrite'::regclass
         THEN 'rule' ELSE 'object' END,
       CASE d.classid WHEN 'pg_proc'::regclass THEN d.objid::regprocedure::text
         WHEN 'pg_rewrite'::regclass THEN (SELECT quote_ident(r.rulename) || ' on ' || r.ev_class::regclass
                                             FROM pg_rewrite r WHERE r.oid = d.objid)
         ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
  FROM pg_depend d
 WHERE d.deptype = 'n' AND d.classid <> 'pg_constraint'::regclass
   AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(indexes)s::oid[])
        OR d.refclassid = 'pg_constraint'::regclass AND d.refobjid IN (
          SELECT c.oid FROM pg_constraint c WHERE c.conindid = ANY (%(indexes)s::oid[])
             AND c.contype IN ('p', 'u', 'x'))) ORDER BY 1, 2"""
"""What PostgreSQL itself keeps the unique for; foreign keys are asked for elsewhere."""

_IDENTITY = (
    "SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid = ANY (%s::oid[]) AND indisreplident"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependent:
    """``is_fatal``: dropping the unique would break it at once, whatever the data are."""

    kind: str
    name: str
    reason: str
    is_fatal: bool = False

    @property
    def is_upsert(self) -> bool:
        """Its ON CONFLICT needs the unique."""
        return self.reason == _UPSERT


def read_dependents(
    connection: Connection,
    table: TableInfo,
    columns: Collection[str],
    old: Collection[int],
    added: Collection[str],
    planned: Collection[str] = (),
) -> tuple[Dependent, ...]:
    """What depends on the unique indexes ``old`` (OIDs) over exactly ``columns``; ``added`` are the columns
    that the new one has besides: a statement that names one of them looks up within one owner already.
    ``planned`` are the columns with which indexes begin that the plan builds before.
    """
    words = _words(connection, table, old)
    fatal = tuple(_depending(connection, old))
    named = {d.name for d in fatal}
    found = (
        *_upserts_and_look_ups(connection, words, columns, added),
        *_functions(connection, words, columns, added),
        *_rules(connection, words, columns),
        *_views(connection, table, columns),
    )
    return (
        *_identity(connection, old),
        *fatal,
        *(d for d in found if d.name not in named),
        *_lost_index(table, columns, old, planned),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What a text that is about the table and its old uniques names."""

    table: int
    relations: tuple[str, ...]
    """the table, and the views of it: an INSERT into these is one into the table"""
    uniques: tuple[str, ...]
    """names of the old indexes and constraints"""

    def names_relation(self, text: str) -> bool:
        return any(_names(relation, text) for relation in self.relations)


def _words(connection: Connection, table: TableInfo, old: Collection[int]) -> _Words:
    views = [str(name) for (name,) in connection.execute(_VIEW_NAMES, [table.oid]).fetchall()]
    uniques = {n for i in table.indexes if i.oid in old for n in (i.name, i.constraint) if n is not None}
    return _Words(table=table.oid, relations=(table.name, *views), uniques=tuple(sorted(uniques)))


def _depending(connection: Connection, old: Collection[int]) -> Iterator[Dependent]:
    for kind, name in connection.execute(_DEPENDING, {"indexes": list(old)}).fetchall():
        reason = "PostgreSQL refuses to drop the unique as long as it exists (2BP01)"
        yield Dependent(kind=kind, name=name, reason=reason, is_fatal=True)


def _identity(connection: Connection, old: Collection[int]) -> Iterator[Dependent]:
    """Logical replication finds rows by it (manual, 31.1 "Publication"); without it
    UPDATE fails with 55000.
    """
    for (name,) in connection.execute(_IDENTITY, [list(old)]).fetchall():
        yield Dependent(
            kind="replica identity",
            name=name,
            reason="logical replication finds rows by it: every UPDATE and DELETE of a published table would"
            " fail",
            is_fatal=True,
        )


def _upserts_and_look_ups(
    connection: Connection, words: _Words, columns: Collection[str], added: Collection[str]
) -> Iterator[Dependent]:
    for seen in read_statements(connection, [*words.relations, *words.uniques]):
        if reason := _reason(seen.query, words, columns, added):
            name = f"{redact(seen.query)} ({seen.calls} calls)"
            yield Dependent(kind="statement", name=name, reason=reason)


def _functions(
    connection: Connection, words: _Words, columns: Collection[str], added: Collection[str]
) -> Iterator[Dependent]:
    asked = {"words": [*words.relations, *words.uniques], "table": words.table}
    for name, body, is_procedure in connection.execute(_FUNCTIONS, asked).fetchall():
        if reason := _reason(body, words, columns, added):
            yield Dependent(kind="procedure" if is_procedure else "function", name=name, reason=reason)


def _rules(connection: Connection, words: _Words, columns: Collection[str]) -> Iterator[Dependent]:
    for name, text in connection.execute(_RULES, [words.table]).fetchall():
        if is_conflict_target(text, columns, words.uniques):
            yield Dependent(kind="rule", name=name, reason=_UPSERT)


def _reason(text: str, words: _Words, columns: Collection[str], added: Collection[str]) -> str:
    """Why the swap concerns the statements of a text; empty where it does not."""
    code = _COMMENT.sub(" ", text)
    if is_conflict_target(code, (), words.uniques):
        return _UPSERT
    if not words.names_relation(code):
        return ""
    if is_conflict_target(code, columns):
        return _UPSERT
    return _LOOK_UP if is_look_up(code, columns, added) else ""


def _views(connection: Connection, table: TableInfo, columns: Collection[str]) -> Iterator[Dependent]:
    rows = connection.execute(_VIEWS, {"table": table.oid, "columns": list(columns)}).fetchall()
    for (name,) in rows:
        yield Dependent(
            kind="view", name=name, reason="it reads these columns; does it expect one row for each value?"
        )


def _lost_index(
    table: TableInfo, columns: Collection[str], old: Collection[int], planned: Collection[str]
) -> Iterator[Dependent]:
    """An index on (bot_id, code) cannot serve a look-up by code alone."""
    left = [i for i in table.indexes if i.oid not in old and i.is_valid and not i.has_predicate]
    first = {*planned, *(i.columns[0] for i in left if i.columns)}
    if not first & set(columns):
        yield Dependent(
            kind="look-ups",
            name=f"by {', '.join(columns)} alone",
            reason=f"no other index of {table.name} begins with it: they would scan the table",
        )


_UPSERT = "its ON CONFLICT target is the old unique: it would fail with 42P10"
_LOOK_UP = "it looks up by the old columns alone: it may find a row of each owner"


_NAME = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
_COMMENT = re.compile(r"(?s)/\*.*?\*/|--[^\n]*")
_BY_NAME = re.compile(rf"(?is)\bon\s+conflict\s+on\s+constraint\s+({_NAME})")
_BY_COLUMNS = re.compile(r"(?is)\bon\s+conflict\s*\(([^()]*)\)")
_COLUMN = re.compile(rf"(?is)\s*({_NAME})")


def is_conflict_target(text: str, columns: Collection[str], constraints: Collection[str] = ()) -> bool:
    """Does an ON CONFLICT of it infer a unique on exactly these columns, or name one of ``constraints``?"""
    if {_folded(name) for name in _BY_NAME.findall(text)} & {c.lower() for c in constraints}:
        return True
    wanted = {c.lower() for c in columns}
    targets = [[_COLUMN.match(item) for item in t.split(",")] for t in _BY_COLUMNS.findall(text)]
    named = [{_folded(m.group(1)) for m in target if m is not None} for target in targets]
    return any(names == wanted for names in named if names)


def _folded(name: str) -> str:
    """In lower case whether quoted or not: rather a finding too many."""
    return name.removeprefix('"').removesuffix('"').replace('""', '"').lower()


def is_look_up(text: str, columns: Collection[str], added: Collection[str]) -> bool:
    """Does it compare each of these columns with a value, and none of ``added``?"""
    return all(_compares(c, text) for c in columns) and not any(_names(c, text) for c in added)


def _compares(column: str, text: str) -> bool:
    name = rf'(?<![\w"]){re.escape(column)}"?'
    return (
        re.search(
            rf'(?is){name}\s*(?:=|\bin\b)|=\s*(?:\w+\.)?"?{re.escape(column)}(?!\w)|"{re.escape(column)}"\s*=',
            text,
        )
        is not None
    )


def _names(name: str, text: str) -> bool:
    return re.search(rf"(?i)(?<!\w){re.escape(name)}(?!\w)", text) is not None
