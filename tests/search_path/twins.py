"""Twins of what our statements call: functions, operators, types and relations of the same names in the
plan's schema.

PostgreSQL takes the candidate whose argument types fit best, whatever its schema (manual, "Type Conversion"),
so a twin with better fitting types is chosen over pg_catalog's where the plan's schema is on the search_path.
Each twin raises an error, and the server counts its calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Final

import postgast
import psycopg
from postgast import find_nodes
from postgast import pg_query_pb2 as ast
from psycopg import sql

COUSINS: Final[dict[str, tuple[str, ...]]] = {
    "regclass": ("oid", "text"),
    "oid": ("regclass", "int4"),
    "text": ("varchar", "name", "bpchar"),
    "name": ("text", "varchar"),
    "int8": ("int4", "int2"),
    "int4": ("int2", "int8"),
    "int2": ("int4",),
    "float8": ("numeric", "int4"),
    "numeric": ("int8", "int4"),
    "timestamptz": ("timestamp",),
    "jsonb": ("json",),
    "anyarray": ("text[]", "name[]", "int2[]", "int4[]", "oid[]"),
    "anycompatiblearray": ("text[]", "int4[]"),
    "anyelement": ("text", "int4", "int8", "bool"),
    "anynonarray": ("text", "name", "int4"),
    '"any"': ("text", "name", "int4", "oid", "bool"),
}
"""other types that an argument of such a type is often given as"""
OPERANDS: Final = (
    "oid", "regclass", "text", "name", "int2", "int4", "int8", '"char"', "bool", "tid", "text[]",
    "name[]", "int2[]", "oid[]",
)  # fmt: skip
"""of which operators have twins, each with each"""
MOST_VARIANTS: Final = 40
"""of one function"""

_OPERATOR_TWINS: Final = """DO $twins$
DECLARE
    l text; r text; op text := {operator}; name text := 'twin_' || pg_catalog.encode({operator}::bytea,
      'hex');
BEGIN
    FOREACH l IN ARRAY {types}::text[] LOOP FOREACH r IN ARRAY {types}::text[] LOOP
        CONTINUE WHEN NOT {exact} AND EXISTS (
            SELECT FROM pg_catalog.pg_operator o WHERE o.oprname = op AND o.oprleft = l::regtype
              AND o.oprright = r::regtype
               AND o.oprnamespace = 'pg_catalog'::regnamespace);
        EXECUTE pg_catalog.format($f$CREATE FUNCTION %I.%I(%s, %s) RETURNS bool LANGUAGE plpgsql AS
            $b$BEGIN RAISE EXCEPTION 'a twin of %%s was called', %L; END$b$$f$, {schema}, name, l, r, op);
        EXECUTE pg_catalog.format('CREATE OPERATOR %I.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %I.%I)',
            {schema}, op, l, r, {schema}, name);
    END LOOP; END LOOP;
END $twins$"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What statements name without a schema."""

    functions: frozenset[tuple[str, int]]
    """name and number of arguments"""
    operators: frozenset[str]
    types: frozenset[str]
    relations: frozenset[str]


def names_in(statements: Iterable[str]) -> Names:
    """The unqualified names of all statements; those of utility statements' own grammar are none."""
    functions: set[tuple[str, int]] = set()
    operators: set[str] = set()
    types: set[str] = set()
    relations: set[str] = set()
    for text in statements:
        tree = postgast.parse(text)
        functions |= {
            (call.funcname[0].string.sval, len(call.args))
            for call in find_nodes(tree, ast.FuncCall)
            if len(call.funcname) == 1
        }
        operators |= set(_operators(tree))
        types |= {
            name.names[0].string.sval for name in find_nodes(tree, ast.TypeName) if len(name.names) == 1
        }
        relations |= {
            r.relname
            for r in find_nodes(tree, ast.RangeVar)
            if not r.schemaname and r.relname.startswith("pg_")
        }
    return Names(
        functions=frozenset(functions),
        operators=frozenset(operators),
        types=frozenset(types),
        relations=frozenset(relations),
    )


def _operators(tree: Any) -> Iterator[str]:
    between = {
        ast.AEXPR_BETWEEN: ("<=", ">="),
        ast.AEXPR_NOT_BETWEEN: ("<", ">"),
    }
    for expression in find_nodes(tree, ast.A_Expr):
        if expression.kind in between:
            yield from between[expression.kind]
        elif len(expression.name) == 1:
            yield expression.name[0].string.sval


class Twins:
    """Made in one schema by one connection; those that PostgreSQL refuses are left out."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, *, exact: bool = False) -> None:
        self._connection = connection
        self._schema = schema
        self._exact = exact
        """also of the very types of pg_catalog's: taken where the schema comes first on the search_path"""
        self.made = 0

    def make(self, names: Names) -> None:
        for name, count in sorted(names.functions):
            for arguments, result in self._signatures(name, count):
                self._function(name, arguments, result)
        for operator in sorted(names.operators):
            self._operators(operator)
        if self._exact:
            for relation in sorted(names.relations):
                self._try(sql.SQL("CREATE TABLE {} ()").format(self._name(relation)))

    def called(self) -> list[str]:
        """The twins that were called, by the server's count."""
        rows = self._connection.execute(
            "SELECT DISTINCT funcname::text FROM pg_catalog.pg_stat_user_functions"
            " WHERE schemaname = %s AND funcid IN (SELECT oid FROM pg_catalog.pg_proc WHERE prosrc LIKE '%%a"
            " twin of%%')",
            [self._schema],
        ).fetchall()
        return sorted(name for (name,) in rows)

    def _signatures(self, name: str, count: int) -> Iterator[tuple[tuple[str, ...], str]]:
        rows = self._connection.execute(
            """SELECT ARRAY(SELECT pg_catalog.format_type(t, NULL)
              FROM pg_catalog.unnest(proargtypes) t), proargtypes::oid[],
                      ARRAY(SELECT ty.typname::text FROM pg_catalog.unnest(proargtypes) WITH ORDINALITY u (t,
                        n)
                              JOIN pg_catalog.pg_type ty ON ty.oid = u.t ORDER BY n),
                      (SELECT typname::text FROM pg_catalog.pg_type WHERE oid = prorettype), proretset
                 FROM pg_catalog.pg_proc WHERE proname = %s AND pronamespace = 'pg_catalog'::regnamespace
                  AND (pronargs = %s OR provariadic <> 0 OR pronargs - pronargdefaults <= %s
                    AND pronargs >= %s)""",
            [name, count, count, count],
        ).fetchall()
        known = {tuple(types) for _, _, types, _, _ in rows}
        for _, _, types, result, is_set in rows:
            wide = [
                (*([t] if self._exact or t not in COUSINS else []), *COUSINS.get(_quoted(t), ()), t)
                for t in types
            ]
            variants = product(*(dict.fromkeys(w) for w in wide))
            for arguments in islice(variants, MOST_VARIANTS):
                if self._exact or arguments not in known:
                    yield arguments, ("SETOF " if is_set else "") + _concrete(result)

    def _function(self, name: str, arguments: tuple[str, ...], result: str) -> None:
        body = f"BEGIN RAISE EXCEPTION 'a twin of {name} was called'; END"
        self._try(
            sql.SQL("CREATE FUNCTION {}({}) RETURNS {} LANGUAGE plpgsql AS {}").format(
                self._name(name),
                sql.SQL(", ".join(map(_typed, arguments))),
                sql.SQL(_typed(result)),
                sql.Literal(body),
            )
        )

    def _operators(self, operator: str) -> None:
        """In the server: some hundred twins of each operator, a round trip for all."""
        self._connection.execute(
            sql.SQL(_OPERATOR_TWINS).format(
                operator=sql.Literal(operator),
                schema=sql.Literal(self._schema),
                types=sql.Literal(list(OPERANDS)),
                exact=sql.Literal(self._exact),
            )
        )

    def _name(self, name: str) -> sql.Identifier:
        return sql.Identifier(self._schema, name)

    def _try(self, statement: sql.Composed) -> None:
        try:
            self._connection.execute(statement)
            self.made += 1
        except psycopg.Error:  # pseudo-types, results that a plain function cannot have, the same one twice
            return


def _quoted(name: str) -> str:
    return f'"{name}"' if name in ("any", "char") else name


def _typed(name: str) -> str:
    """With its schema, so that no twin of a type is taken."""
    if name.startswith("SETOF "):
        return f"SETOF {_typed(name.removeprefix('SETOF '))}"
    base, _, array = name.partition("[")
    if base.startswith("_"):
        base, array = base[1:], "]"
    return f"pg_catalog.{_quoted(base)}" + ("[]" if array else "")


def _concrete(result: str) -> str:
    return {"anyelement": "text", "anyarray": "_text", "record": "record", "anynonarray": "text"}.get(
        result, result
    )
