"""What would stop, spoil or surprise a backfill at row 12,000,000, read from the catalog before the first one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import psycopg
from psycopg import sql

from online_migrate.backfill.rows import describe_rows
from online_migrate.postgres.catalog import ConstraintInfo, TableInfo
from online_migrate.postgres.connection import Connection
from online_migrate.postgres.sqlstate import Trouble, trouble_of

LOOK_TIMEOUT_MS = 5_000
"""a look for rows that break a check is given up after this; check says so then"""
QUOTE_NOTHING = {"22001", "22003", "22012"}
"""too long, out of range, division by zero: errors of data whose text holds nothing of the row"""

_RIGHTS = {"SELECT": "read", "UPDATE": "update"}
_WRITES = re.compile(
    r"\b(insert|update|delete|merge|copy|truncate|execute|perform|call|select)\b", re.IGNORECASE
)
_SETS = re.compile(
    r"(?i)(?:\bnew\.\"?(?=\w+\"?\s*:=)|(?:^|;|\b(?:begin|then|else|loop)\b)\s*new\.\"?)(\w+)\"?\s*(?::=|=(?!=))"
)
"""in PL/pgSQL ``=`` assigns at the beginning of a statement only, and compares elsewhere"""
_INTO = re.compile(r"(?i)\binto\s+(?:strict\s+)?((?:[\w.\"]+\s*,\s*)*[\w.\"]+)")
_OF_NEW = re.compile(r"(?i)\bnew\.\"?(\w+)")
_SET_THEIR_ARGUMENT = {
    "moddatetime",
    "insert_username",
    "tsvector_update_trigger",
    "tsvector_update_trigger_column",
}
"""trigger functions in C whose first argument is the column that they set (manual, 12.4.3 and appendix F, "spi")"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hazard:
    """A fact about a table, how bad it is, and what to do."""

    level: Literal["stop", "warn", "info"]
    code: str
    fact: str
    remedy: str
    manual: str = ""


def read_traps(
    connection: Connection,
    table: TableInfo,
    column: str,
    *,
    value: sql.Composable | None = None,
    skip_triggers: bool = False,
) -> list[Hazard]:
    """Everything at once; reads only, and no rows but for NOT VALID checks, where it may read them.

    ``value`` is what a batch sets, where that is known.
    """
    rights = read_right_traps(connection, table)
    return [
        *_kind(connection, table, column),
        *_storage(connection, table, column),
        *_triggers(connection, table, column, skip=skip_triggers),
        *_rules(connection, table),
        *rights,
        *([] if rights else _checks(connection, table, column, value)),
        *_publications(connection, table),
    ]


def _kind(connection: Connection, table: TableInfo, column: str) -> Iterator[Hazard]:
    names = {"p": "partitioned", "f": "a foreign table", "v": "a view", "m": "a materialised view"}
    if table.kind != "r":
        fact = f"{table.name} is {names.get(table.kind, table.kind)}; a backfill walks tables of rows"
        remedy = "take it out of the set" if table.kind != "p" else _leaves(connection, table)
        yield Hazard(level="stop", code="not_a_table", fact=fact, remedy=remedy)
    for index in table.indexes:
        if column in index.columns and index.can_be_referenced:
            fact = f"unique index {index.name} holds {column}: every update locks its row as a DELETE does, and inserts of children wait"
            yield Hazard(
                level="stop", code="unique_on_column", fact=fact, remedy="build it after the backfill"
            )


def _leaves(connection: Connection, table: TableInfo) -> str:
    """What the plan is to name in its place."""
    rows = connection.execute(
        """SELECT l.relname, n.nspname FROM pg_partition_tree(%s::oid) t JOIN pg_class l ON l.oid = t.relid
             JOIN pg_namespace n ON n.oid = l.relnamespace WHERE t.isleaf AND l.relkind = 'r' ORDER BY l.relname""",
        [table.oid],
    ).fetchall()
    here = ", ".join(name for name, schema in rows if schema == table.schema)
    elsewhere = ", ".join(f"{schema}.{name}" for name, schema in rows if schema != table.schema)
    named = f"name its partitions in its place: tables: [{here}]"
    return f"{named}, and by plans of their schemas {elsewhere}" if elsewhere else named


def _storage(connection: Connection, table: TableInfo, column: str) -> Iterator[Hazard]:
    row = connection.execute(
        """SELECT c.relpersistence::text, a.attgenerated::text, a.attidentity::text,
                  ARRAY(SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid ORDER BY 1),
                  ARRAY(SELECT g.attname FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '' AND NOT g.attisdropped
                         AND g.attname <> %(column)s ORDER BY g.attnum)
             FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = %(column)s
            WHERE c.oid = %(oid)s""",
        {"column": column, "oid": table.oid},
    ).fetchone()
    assert row is not None  # the table was just read
    persistence, generated, identity, descendants, computed = row
    if generated or identity == "a":
        fact = f"{table.name}.{column} is {'a generated column' if generated else 'GENERATED ALWAYS AS IDENTITY'}: PostgreSQL gives its value"
        yield Hazard(level="stop", code="generated_column", fact=fact, remedy="backfill another column")
    if persistence == "u":
        fact = f"{table.name} is unlogged: a crash of the server empties it"
        yield Hazard(
            level="info",
            code="unlogged",
            fact=fact,
            remedy="nothing; after a crash there is nothing left to fill",
        )
    if descendants and table.kind == "r":
        fact = f"{table.name} has tables that inherit from it, which are not walked with it: {', '.join(descendants)}"
        yield Hazard(level="warn", code="inherited", fact=fact, remedy="name them in the plan as well")
    if computed:
        fact = f"{table.name}: generated columns are computed anew with every row that is written: {', '.join(computed)}"
        yield Hazard(
            level="info",
            code="generated_beside",
            fact=fact,
            remedy="an index on one of them is no hindrance unless its value changes",
        )


def read_writing_triggers(
    connection: Connection, schema: str, tables: Collection[str], *, skip: bool
) -> list[str]:
    """Triggers on UPDATE of these tables that may write a table, ``name of table`` each.

    Of one in PL/pgSQL its text says that it does not; of any other, and of a rule, it is not known.
    """
    rows = connection.execute(
        """SELECT t.tgname || ' of ' || c.relname, CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
            WHERE n.nspname = %s AND c.relname = ANY (%s) AND t.tgtype & 16 = 16 AND t.tgenabled::text = ANY (%s)
              AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
            ORDER BY 1""",
        [schema, list(tables), ["A", "R"] if skip else ["A", "O"]],
    ).fetchall()
    return [name for name, body in rows if body is None or _WRITES.search(body)]


def _triggers(connection: Connection, table: TableInfo, column: str, *, skip: bool) -> Iterator[Hazard]:
    """Those of keys and exclusions apart.  Up to 14 a partition's copy of its root's trigger has tgisinternal, which thus says nothing."""
    rows = connection.execute(
        """SELECT t.tgname, p.prosrc, t.tgtype & 2 = 2 AND t.tgtype & 1 = 1, t.tgenabled::text,
                  CASE WHEN l.lanname IN ('c', 'internal') AND p.proname = ANY (%(known)s)
                       THEN convert_from(substring(t.tgargs FROM 1 FOR position('\\x00'::bytea IN t.tgargs) - 1), getdatabaseencoding()) END
             FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
            WHERE t.tgrelid = %(oid)s AND t.tgtype & 16 = 16 AND t.tgenabled <> 'D'
              AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.oid = t.tgconstraint AND c.contype <> 't')
              AND (t.tgattr = '' OR (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = t.tgrelid AND a.attname = %(column)s)
                   = ANY (string_to_array(t.tgattr::text, ' ')::int[]))
            ORDER BY t.tgname""",
        {"oid": table.oid, "column": column, "known": sorted(_SET_THEIR_ARGUMENT)},
    ).fetchall()
    if skip:
        rows = [r for r in rows if r[3] in ("A", "R")]
        yield from _skipping(connection, table, column)
    else:
        rows = [r for r in rows if r[3] != "R"]
    setters = {
        name: sorted((_set_by(body) if argument is None else {argument}) - {column})
        for name, body, before_row, _, argument in rows
        if before_row
    }
    remedy = "if they should not fire for old rows: `triggers: skip`"
    for name, columns in setters.items():
        if columns:
            fact = f"trigger {name} of {table.name} sets {', '.join(columns)} in every row that the backfill writes"
            yield Hazard(level="warn", code="trigger_sets", fact=fact, remedy=remedy)
    others = [r[0] for r in rows if not setters.get(r[0])]
    if others:
        fact = f"{table.name}: triggers fire for every row that the backfill writes: {', '.join(others)}"
        yield Hazard(level="warn", code="triggers", fact=fact, remedy=remedy)


def _set_by(body: str) -> set[str]:
    """The columns that a PL/pgSQL function assigns to, by ``:=``, ``=`` or INTO; for a whole record they are not known."""
    into = _OF_NEW.findall(" ".join(_INTO.findall(body)))
    return {*_SETS.findall(body), *into}


def is_given_on_insert(connection: Connection, table: TableInfo, column: str) -> bool:
    """Has an INSERT that leaves the column out a value for it: from a default, its type, or a trigger?

    Of a trigger in another language than PL/pgSQL it is not known, and it counts.
    """
    rows = connection.execute(
        """SELECT NULL FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
            WHERE a.attrelid = %(oid)s AND a.attname = %(column)s
              AND (a.atthasdef OR a.attidentity <> '' OR y.typdefault IS NOT NULL)
            UNION ALL
           SELECT CASE WHEN l.lanname = 'plpgsql' THEN p.prosrc END
             FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
            WHERE t.tgrelid = %(oid)s AND t.tgtype & 7 = 7 AND t.tgenabled IN ('A', 'O')""",
        {"oid": table.oid, "column": column},
    ).fetchall()
    return any(body is None or column in _set_by(body) for (body,) in rows)


def _skipping(connection: Connection, table: TableInfo, column: str) -> Iterator[Hazard]:
    """session_replication_role = replica needs a right, and switches foreign-key checks off (postgres-facts 16)."""
    may = "current_setting('is_superuser') = 'on'"
    if connection.info.server_version >= 150000:
        may += " OR has_parameter_privilege(current_user, 'session_replication_role', 'SET')"
    row = connection.execute(sql.SQL("SELECT {}, quote_ident(current_user)").format(sql.SQL(may))).fetchone()
    assert row is not None  # a SELECT without FROM has one row
    if not row[0]:
        grant = f"GRANT SET ON PARAMETER session_replication_role TO {row[1]} (from 15 on), or leave triggers to fire"
        fact = f"triggers: skip sets session_replication_role, which {row[1]} may not"
        yield Hazard(level="stop", code="skip_right", fact=fact, remedy=grant)
    keys = [k.name for k in table.foreign_keys if column in k.columns]
    if keys:
        fact = f"triggers: skip would also skip foreign key {', '.join(keys)} on {table.name}.{column}: an orphan would go in"
        yield Hazard(
            level="stop",
            code="skip_foreign_key",
            fact=fact,
            remedy="add the foreign key after the backfill, or let triggers fire",
        )


def _rules(connection: Connection, table: TableInfo) -> Iterator[Hazard]:
    rows = connection.execute(
        "SELECT rulename FROM pg_rewrite WHERE ev_class = %s AND ev_type = '2' AND ev_enabled <> 'D'",
        [table.oid],
    ).fetchall()
    if rows:
        fact = f"{table.name} has rules ON UPDATE, which rewrite a batch: {', '.join(r[0] for r in rows)}"
        yield Hazard(
            level="stop",
            code="update_rule",
            fact=fact,
            remedy="make them triggers, or disable them for the time",
        )


def read_right_traps(
    connection: Connection, table: TableInfo, rights: Sequence[str] = ("SELECT", "UPDATE")
) -> list[Hazard]:
    """What keeps us from these rights on all of its rows; while it does, its rows are not to be looked at."""
    row = connection.execute(
        """SELECT (SELECT bool_and(has_table_privilege(c.oid, r)) FROM unnest(%s::text[]) r), quote_ident(current_user),
                  row_security_active(c.oid), c.relforcerowsecurity
             FROM pg_class c WHERE c.oid = %s""",
        [list(rights), table.oid],
    ).fetchone()
    assert row is not None  # the table was just read
    may, user, hides, forced = row
    hazards = []
    if not may:
        fact = f"{user} may not {' and '.join(_RIGHTS[r] for r in rights)} {table.name}"
        remedy = f"GRANT {', '.join(rights)} ON {table.full_name} TO {user}"
        hazards.append(Hazard(level="stop", code="table_right", fact=fact, remedy=remedy))
    if hides:
        fact = f"row-level security of {table.name} hides rows from {user}: they would be passed over"
        remedy = f"ALTER ROLE {user} BYPASSRLS" + (
            f", or ALTER TABLE {table.full_name} NO FORCE ROW LEVEL SECURITY" if forced else ""
        )
        hazards.append(Hazard(level="stop", code="row_security", fact=fact, remedy=remedy))
    return hazards


def _checks(
    connection: Connection, table: TableInfo, column: str, value: sql.Composable | None
) -> Iterator[Hazard]:
    """An UPDATE checks a NOT VALID constraint too: an old row that breaks it, once it has its value, cannot be written (23514)."""
    for check in table.constraints:
        if check.kind != "c" or check.is_valid:
            continue
        row = connection.execute(
            """SELECT pg_get_expr(conbin, conrelid), coalesce((to_jsonb(c) ->> 'conenforced')::bool, true)
                 FROM pg_constraint c WHERE oid = %s""",
            [check.oid],
        ).fetchone()
        assert row is not None  # the constraint was just read
        if not row[1]:
            continue  # NOT ENFORCED, from 18 on
        begin = f"{table.name}: NOT VALID check {check.name}: whether an old row breaks it"
        unknown = Hazard(
            level="warn",
            code="check_unknown",
            fact=f"{begin} is not known before {column}'s value is",
            remedy="such a row would stop the backfill: look for it before",
        )
        if column in check.columns and value is None:
            yield unknown
            continue
        try:
            found = look_for_rows(connection, _breaking(table, check, row[0], column, value))
        except (
            psycopg.errors.QueryCanceled,
            psycopg.errors.ReadOnlySqlTransaction,  # the value is nextval(), say
            psycopg.ProgrammingError,  # it names what the plan is still to make
        ) as error:
            yield replace(unknown, fact=f"{begin} was not seen: {text_of(error)}")
            continue
        except psycopg.Error as error:
            if trouble_of(error) is not Trouble.PROGRAM:
                raise
            fact = f"{table.name}: NOT VALID check {check.name} fails for an old row, and so does an UPDATE of it: {kind_of(error)}"
            yield Hazard(
                level="stop", code="broken_check", fact=fact, remedy="mend the row, or drop the check"
            )
            continue
        if found:
            rows = describe_rows(connection, table, found)
            fact = f"{table.name}: old rows break the NOT VALID check {check.name}, so no UPDATE of them goes through: {rows}"
            remedy = "mend these rows, or drop the check"
            yield Hazard(level="stop", code="broken_check", fact=fact, remedy=remedy)


def _breaking(
    table: TableInfo, check: ConstraintInfo, expression: str, column: str, value: sql.Composable | None
) -> sql.Composed:
    """Rows to be written that break the check as they will be: with the value, where it is about the column.

    A row whose value is NULL is not written: the inner SELECT has no row then, and NOT gives NULL.
    """
    holds: sql.Composable = sql.SQL(expression)
    target, name = sql.Identifier(column), sql.Identifier(table.name)
    if value is not None and column in check.columns:
        filled = sql.SQL(", ").join(
            sql.SQL("CAST({} AS {}) AS {}").format(value, sql.SQL(c.type), target)
            if c.name == column
            else sql.SQL("{}.{}").format(name, sql.Identifier(c.name))
            for c in table.columns.values()
        )
        holds = sql.SQL("SELECT {} FROM (SELECT {}) AS {} WHERE {} IS NOT NULL").format(
            holds, filled, name, target
        )
    empty = sql.SQL("{} IS NULL AND ").format(target) if column in table.columns else sql.SQL("")
    return sql.SQL("SELECT ctid::text FROM ONLY {} WHERE {}NOT ({}) LIMIT 3").format(
        sql.Identifier(table.schema, table.name), empty, holds
    )


def look_for_rows(connection: Connection, query: sql.Composed) -> list[str]:
    """TIDs that a query finds; it may write nothing, and is given up (57014) after LOOK_TIMEOUT_MS."""
    with connection.transaction():
        limit_look(connection)
        # binary: by the extended protocol, which takes one statement, whatever an expression of the plan holds
        return [ctid for (ctid,) in connection.execute(query, binary=True).fetchall()]


def limit_look(connection: Connection) -> None:
    """The transaction may write nothing, and each of its statements is given up (57014) after LOOK_TIMEOUT_MS."""
    connection.execute(
        sql.SQL("SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = {}").format(
            sql.Literal(LOOK_TIMEOUT_MS)
        )
    )


def text_of(error: psycopg.Error) -> str:
    """What the server says; of a look that was cut off, after how long."""
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"it takes longer than {LOOK_TIMEOUT_MS / 1000:g} s"
    return error.diag.message_primary or str(error)


def kind_of(error: psycopg.Error) -> str:
    """What the server says of a row, without what stands in the row: errors of data often quote it, as 22P02 does.

    Source: PostgreSQL manual, appendix A "PostgreSQL Error Codes", class 22.
    """
    state = error.sqlstate or ""
    if state.startswith("22") and state not in QUOTE_NOTHING:
        return f"{type(error).__name__} ({state})"
    return text_of(error)


def _publications(connection: Connection, table: TableInfo) -> Iterator[Hazard]:
    row = connection.execute(
        """WITH published AS (
               SELECT p.pubname, p.pubupdate FROM pg_publication_tables t JOIN pg_publication p USING (pubname)
                WHERE format('%%I.%%I', t.schemaname, t.tablename)::regclass IN (SELECT %(oid)s UNION SELECT pg_partition_ancestors(%(oid)s)))
           SELECT ARRAY(SELECT pubname FROM published ORDER BY 1),
                  ARRAY(SELECT p.pubname FROM pg_publication p WHERE p.puballtables ORDER BY 1),
                  ARRAY(SELECT pubname FROM published WHERE pubupdate ORDER BY 1),
                  c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
                   AND (c.relreplident = 'd' AND i.indisprimary AND i.indimmediate OR c.relreplident = 'i' AND i.indisreplident))
             FROM pg_class c WHERE c.oid = %(oid)s""",
        {"oid": table.oid},
    ).fetchone()
    assert row is not None  # the table was just read
    names, for_all, of_updates, lacks_identity = row
    if of_updates and lacks_identity:
        fact = f"{table.name} is published by {', '.join(of_updates)} and has no replica identity: PostgreSQL refuses every UPDATE of it (55000)"
        yield Hazard(
            level="stop",
            code="replica_identity",
            fact=fact,
            remedy=f"ALTER TABLE {table.full_name} REPLICA IDENTITY …, or take it out",
        )
    elif names:
        fact = f"{table.name} is published by {', '.join(names)}: its subscribers stop at a column that they do not have"
        yield Hazard(
            level="warn", code="published", fact=fact, remedy="add the column at the subscribers first"
        )
    if for_all:
        fact = f"publications FOR ALL TABLES carry our journal too: {', '.join(for_all)}"
        remedy = "make schema online_migrate with its tables at the subscribers first, or they stop at our first row"
        yield Hazard(level="warn", code="all_tables", fact=fact, remedy=remedy)
