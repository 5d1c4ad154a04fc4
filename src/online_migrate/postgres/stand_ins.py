"""Copies of tables, like the real ones, in a schema of a transaction that is rolled back.

``LIKE … INCLUDING ALL`` gives columns, defaults, checks, identity, storage and statistics.  The rest is read
from the catalog: persistence, storage parameters, tablespace, uniques and indexes under their own names,
partition keys and bounds, inheritance, replica identity, triggers that are known to write nothing.  What
exists is read under ACCESS SHARE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from online_migrate.postgres.connection import OUR_PATH, Connection, Sql
from online_migrate.postgres.search_path import SearchPath, set_local
from online_migrate.postgres.sqlstate import is_connection_lost

LOCK_TIMEOUT_MS = 100
"""ACCESS SHARE is all that is asked of what exists; a session that refuses it is not waited for"""
STATEMENT_TIMEOUT_MS = 1_000

MANY_DEFAULTS = 100
"""the server copies defaults in a time that grows with their square; rows are copied without them, too"""
_OUR_PATH = sql.SQL("SET LOCAL search_path = {}").format(sql.SQL(OUR_PATH))
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|copy|truncate|lock|execute|perform|call|select)\b", re.IGNORECASE
)
_CALLS = re.compile(r'(?:"((?:[^"]|"")+)"|(\w+))\s*\(')

_SHAPES = """
SELECT c.relname, c.relkind::text, c.relpersistence::text, c.relispartition,
       CASE WHEN c.relkind = 'r' THEN (SELECT m.amname FROM pg_catalog.pg_am m WHERE m.oid = c.relam) END,
       ARRAY(SELECT o.option_name || ' = ' || pg_catalog.quote_literal(o.option_value)
               FROM pg_catalog.pg_options_to_table(c.reloptions) o),
       (SELECT s.spcname FROM pg_catalog.pg_tablespace s
         WHERE s.oid = c.reltablespace AND pg_catalog.has_tablespace_privilege(s.oid, 'CREATE')),
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid), c.relreplident::text,
       (SELECT r.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class r ON r.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisreplident),
       ARRAY(SELECT pg_catalog.format('CONSTRAINT %%I %%s', k.conname, pg_catalog.pg_get_constraintdef(k.oid))
               FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_index i ON i.indexrelid = k.conindid
              WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x') AND i.indisvalid
              ORDER BY k.contype, k.conname),
       ARRAY(SELECT pg_catalog.format(
                      'CREATE %%sINDEX %%I ON %%I.%%I %%s',
                      CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
                      x.relname, %(copies)s::text, c.relname,
                      pg_catalog.substr(d.text, pg_catalog.strpos(d.text, ' USING ') + 1))
               FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid,
                    LATERAL (SELECT pg_catalog.pg_get_indexdef(i.indexrelid) AS text) d
              WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisready AND i.indislive
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                                 WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
              ORDER BY x.relname),
       ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              ORDER BY a.attnum),
       ARRAY(SELECT k.conname FROM pg_catalog.pg_constraint k
              WHERE k.conrelid = c.oid AND k.contype = 'c' AND NOT k.convalidated ORDER BY k.conname),
       ARRAY(SELECT pg_catalog.format('CONSTRAINT %%I %%s', k.conname, pg_catalog.pg_get_constraintdef(k.oid))
               FROM pg_catalog.pg_constraint k
              WHERE k.conrelid = c.oid AND k.contype = 'c' AND NOT k.convalidated ORDER BY k.conname),
       ARRAY(SELECT p.relname FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhparent
              WHERE h.inhrelid = c.oid AND p.relnamespace = c.relnamespace ORDER BY h.inhseqno),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attrdef f WHERE f.adrelid = c.oid)::int
  FROM pg_catalog.pg_class c
 WHERE c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = %(schema)s)
   AND c.relname = ANY (%(names)s) AND c.relkind IN ('r', 'p')"""

_SEQUENCES = """
SELECT a.attname, a.attidentity <> '',
       pg_catalog.format('AS %%s INCREMENT %%s MINVALUE %%s MAXVALUE %%s %%s',
                         q.seqtypid::pg_catalog.regtype, q.seqincrement,
                         q.seqmin, q.seqmax, CASE WHEN q.seqcycle THEN 'CYCLE' ELSE '' END),
       pg_catalog.format('%%I.%%I', sn.nspname, s.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n'
  JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
  JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
  JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s
UNION ALL
SELECT a.attname, true, '', pg_catalog.format('%%I.%%I', sn.nspname, s.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attidentity <> ''
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                             AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i'
                             AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s"""

_IS_WRITER = """
p.provolatile = 'v' AND (p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
                         OR p.proname IN ('nextval', 'setval'))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.objid = p.oid AND e.deptype = 'e'
                      AND e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)"""
"""A volatile function of the database's users: it may write, and lock, what is live.  Those of extensions
make UUIDs and the like.
"""

_MAY_WRITE = f"""
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p
 WHERE (p.proname = ANY (%(names)s) OR pg_catalog.lower(p.proname) = ANY (%(names)s)) AND {_IS_WRITER})"""  # noqa: S608  # our own text

_WRITING_DEFAULTS = f"""
SELECT a.attname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attrdef f ON f.adrelid = c.oid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = f.adnum
  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid
                             AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
 WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND {_IS_WRITER}"""  # noqa: S608  # our own text

_TRIGGERS = """
SELECT c.relname, t.tgname, CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END,
       pg_catalog.pg_get_triggerdef(t.oid), pg_catalog.format(' ON %%I.%%I ', n.nspname, c.relname)
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE n.nspname = %(schema)s AND c.relname = ANY (%(names)s)
   AND t.tgtype & 16 = 16 AND t.tgenabled IN ('O', 'A')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
 ORDER BY c.relname, t.tgname"""
"""on UPDATE, those of foreign keys and exclusion constraints apart"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What ``LIKE`` does not copy of a table."""

    name: str
    kind: str
    persistence: str
    is_partition: bool
    method: str | None
    options: tuple[str, ...]
    tablespace: str | None
    partition_key: str | None
    bound: str | None
    replica_identity: str
    replica_index: str | None
    constraints: tuple[str, ...]
    indexes: tuple[str, ...]
    columns: tuple[str, ...]
    """those that an INSERT may name: the generated ones are not among them"""
    unproven: tuple[str, ...]
    """names of checks that are NOT VALID, which ``LIKE`` would copy as valid"""
    unproven_definitions: tuple[str, ...]
    parents: tuple[str, ...]
    """in the same schema, whose partition or heir it is"""
    defaults: int
    """how many columns have one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What a copy does not have of its table, and why."""

    table: str
    what: str
    error: psycopg.Error | None = None

    @property
    def text(self) -> str:
        if self.error is None:
            return self.what
        return f"{self.what} ({self.error.diag.message_primary or self.error})"


class StandIns:
    """The copies of one transaction.

    ``ensure_time`` is called before each attempt and each read.  It raises where the transaction has been
    open for long enough.
    """

    def __init__(
        self, connection: Connection, *, schema: str, ensure_time: Callable[[], None] = lambda: None
    ) -> None:
        self.connection = connection
        self.ensure_time = ensure_time
        self.schema = schema
        self.copies = f"online_migrate_rehearsal_{connection.info.backend_pid}"
        """a schema for each session: two checks at the same time do not wait for each other"""
        self.shapes: dict[str, Shape] = {}
        self.missing: list[Missing] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The transaction, with the copies' schema and short timeouts; always rolled back."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(
                sql.SQL(
                    "SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {};"
                    " SET LOCAL client_min_messages = warning; CREATE SCHEMA {}; {}"
                ).format(
                    sql.Literal(LOCK_TIMEOUT_MS),
                    sql.Literal(STATEMENT_TIMEOUT_MS),
                    sql.Identifier(self.copies),
                    _OUR_PATH,
                )
            )
            yield

    def name(self, table: str) -> sql.Identifier:
        return sql.Identifier(self.copies, table)

    def create(self, tables: Iterable[str]) -> None:
        """Copy these tables, without their rows; what a copy lacks is in :attr:`missing`."""
        names = list(dict.fromkeys(tables))
        for shape in self._read(names):
            self.shapes[shape.name] = shape
        for name in names:
            if name in self.shapes and self._attempt(name, "the table", self._table(self.shapes[name])):
                del self.shapes[name]
        for name in names:
            if name in self.shapes:
                self._connect(self.shapes[name])

    def own_sequences(self, table: str) -> bool:
        """Give the copy sequences of its own, at the values of the live ones.

        False where that is refused, or where a default calls a function that may write.
        """
        names = {"schema": self.schema, "table": table}
        if writing := self.connection.execute(_WRITING_DEFAULTS, names).fetchone():
            what = f"a default of {writing[0]}, whose function may write"
            self.missing.append(Missing(table=table, what=what))
            return False
        rows = self.connection.execute(_SEQUENCES, names).fetchall()
        for number, (column, is_identity, definition, live) in enumerate(rows):
            name = self.name(f"online_migrate_{number}")
            text: sql.Composable = sql.Literal(name.as_string(None))
            if is_identity:
                text = sql.SQL("pg_catalog.pg_get_serial_sequence({}, {})").format(
                    sql.Literal(self.name(table).as_string(None)), sql.Literal(column)
                )
            else:
                make = sql.SQL(
                    "CREATE SEQUENCE {} {}; ALTER TABLE {} ALTER COLUMN {} SET DEFAULT pg_catalog.nextval({})"
                )
                made = make.format(name, sql.SQL(definition), self.name(table), sql.Identifier(column), text)
                if self._attempt(table, f"the sequence of {column}", made):
                    return False
            place = sql.SQL(
                "SELECT pg_catalog.setval({}::pg_catalog.regclass, s.last_value, s.is_called) FROM {} s"
            )
            if self._attempt(table, f"the sequence of {column}", place.format(text, sql.SQL(live))):
                return False
        return True

    def finish(self, tables: Iterable[str]) -> None:
        """What must come after the rows: checks that are NOT VALID, and triggers that write nothing."""
        names = [n for n in tables if n in self.shapes]
        for name in names:
            for definition in self.shapes[name].unproven_definitions:
                add = sql.SQL("ALTER TABLE {} ADD {}").format(self.name(name), sql.SQL(definition))
                self._attempt(name, "a check that is not valid", add)
        self._triggers(names)

    def attempt(self, statement: Sql) -> psycopg.Error | None:
        """Execute it under a savepoint; what the server refuses is returned, and undone."""
        self.ensure_time()
        try:
            with self.connection.transaction():
                self.execute(statement)
        except psycopg.Error as error:
            if self.connection.closed or is_connection_lost(error):
                raise
            return error
        return None

    def execute(self, statement: Sql, path: SearchPath = SearchPath.ROLE) -> None:
        """With that path, on which the copies come before the tables; the line break ends a comment."""
        if path is SearchPath.OURS:
            self.connection.execute(statement)
            return
        first = set_local(self.connection, path, first=self.copies)
        self.connection.execute(sql.SQL("{}; {}\n; {}").format(first, statement, _OUR_PATH))

    def _attempt(self, table: str, what: str, statement: Sql) -> bool:
        """Was it refused?  Then it is missing."""
        error = self.attempt(statement)
        if error is not None:
            self.missing.append(Missing(table=table, what=what, error=error))
        return error is not None

    def _read(self, names: list[str]) -> list[Shape]:
        """Every name in a definition has its schema, because pg_catalog is alone on the path."""
        rows = self.connection.execute(
            _SHAPES, {"schema": self.schema, "names": names, "copies": self.copies}
        ).fetchall()
        return [_shape(row) for row in rows]

    def _table(self, shape: Shape) -> Sql:
        """The table with its uniques, unless it is a root, whose leaves come first."""
        like = "LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING COMMENTS"
        like += " EXCLUDING IDENTITY" if shape.is_partition else ""
        like += " EXCLUDING DEFAULTS" if shape.defaults > MANY_DEFAULTS else ""
        parts: list[sql.Composable] = [sql.SQL(like).format(sql.Identifier(self.schema, shape.name))]
        if shape.kind == "r":
            parts += map(sql.SQL, shape.constraints)
        text = sql.SQL("CREATE {}TABLE {} ({})").format(
            sql.SQL("UNLOGGED " if shape.persistence == "u" else ""),
            self.name(shape.name),
            sql.SQL(", ").join(parts),
        )
        if shape.partition_key is not None:
            text += sql.SQL(" PARTITION BY {}").format(sql.SQL(shape.partition_key))
        if shape.method not in (None, "heap"):
            text += sql.SQL(" USING {}").format(sql.Identifier(shape.method))
        if shape.options:
            text += sql.SQL(" WITH ({})").format(sql.SQL(", ").join(map(sql.SQL, shape.options)))
        if shape.tablespace is not None:
            text += sql.SQL(" TABLESPACE {}").format(sql.Identifier(shape.tablespace))
        return text

    def _connect(self, shape: Shape) -> None:
        """Indexes, then parents, replica identity; of a root its uniques."""
        name, table = shape.name, self.name(shape.name)
        for definition in shape.indexes:
            self._attempt(name, "an index", sql.SQL(definition))
        for check in shape.unproven:
            self._attempt(
                name,
                "a check",
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(check)),
            )
        for parent in (p for p in shape.parents if p in self.shapes):
            if shape.bound is None:
                link = sql.SQL("ALTER TABLE {} INHERIT {}").format(table, self.name(parent))
            else:
                link = sql.SQL("ALTER TABLE {} ATTACH PARTITION {} {}").format(
                    self.name(parent), table, sql.SQL(shape.bound)
                )
            self._attempt(name, "its parent", link)
        if shape.kind == "p":
            for definition in shape.constraints:
                self._attempt(
                    name, "a unique", sql.SQL("ALTER TABLE {} ADD {}").format(table, sql.SQL(definition))
                )
        if shape.replica_identity in "fn":
            identity = "FULL" if shape.replica_identity == "f" else "NOTHING"
            self._attempt(
                name,
                "replica identity",
                sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(table, sql.SQL(identity)),
            )
        elif shape.replica_identity == "i" and shape.replica_index is not None:
            using = sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}")
            self._attempt(name, "replica identity", using.format(table, sql.Identifier(shape.replica_index)))

    def _triggers(self, names: list[str]) -> None:
        """Those whose source shows that they write nothing: another could write, or lock, what is live."""
        rows = self.connection.execute(_TRIGGERS, {"schema": self.schema, "names": names}).fetchall()
        for table, trigger, body, definition, on in rows:
            condition = definition.partition(" EXECUTE FUNCTION ")[0]
            if body is None or _WRITES.search(body) or self.may_write(f"{condition}; {body}"):
                self.missing.append(Missing(table=table, what=f"trigger {trigger}"))
                continue
            copy = sql.SQL(" ON {} ").format(self.name(table)).as_string(None)
            self._attempt(table, f"trigger {trigger}", sql.SQL(definition.replace(on, copy, 1)))

    def may_write(self, text: str) -> bool:
        """Does the SQL call a function that may write what is live?"""
        called = _CALLS.findall(text)
        names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in called]
        row = self.connection.execute(_MAY_WRITE, {"names": names}).fetchone()
        return row is None or bool(row[0])


def _shape(row: tuple[object, ...]) -> Shape:
    fields = Shape.__dataclass_fields__
    values: Mapping[str, object] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in zip(fields, row, strict=True)
    }
    return Shape(**values)  # type: ignore[arg-type]  # the query has the record's fields in its order
