"""What one role may do in a database, asked one right at a time; the role need not exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from online_migrate.postgres.connection import Connection

_ROLE = """
SELECT quote_ident(%(role)s), quote_ident(current_database()), coalesce(r.rolsuper, false), r.oid IS NOT NULL
  FROM (SELECT) AS one LEFT JOIN pg_roles r ON r.rolname = %(role)s"""
_OWNERS = """
WITH RECURSIVE wanted (oid) AS (
  SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p')
  UNION SELECT i.inhrelid FROM pg_inherits i JOIN wanted w ON i.inhparent = w.oid)
SELECT r.rolname, r.rolsuper, min(c.relname)
  FROM wanted w JOIN pg_class c ON c.oid = w.oid JOIN pg_roles r
    ON r.oid = c.relowner GROUP BY 1, 2"""
_JOURNAL = """
SELECT pg_get_userbyid(n.nspowner), n.oid,
       ARRAY(SELECT c.oid FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind = 'r')
  FROM pg_namespace n WHERE n.nspname = 'online_migrate'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who owns tables, and one of them."""

    name: str
    is_superuser: bool
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRights:
    """Written as a text, it is the role's name as SQL writes it."""

    connection: Connection
    name: str
    as_sql: str
    database: str
    """as SQL writes it"""
    is_superuser: bool
    exists: bool

    @classmethod
    def read(cls, connection: Connection, role: str | None = None) -> Self:
        """Of ``role``, or of the session's own."""
        name = role if role is not None else _one(connection, "SELECT current_user::text")
        row = connection.execute(_ROLE, {"role": name}).fetchone()
        assert row is not None  # a LEFT JOIN of one row has one
        as_sql, database, is_superuser, exists = row
        return cls(
            connection=connection,
            name=name,
            as_sql=as_sql,
            database=database,
            is_superuser=is_superuser,
            exists=exists,
        )

    def __str__(self) -> str:
        return self.as_sql

    @property
    def version(self) -> int:
        return self.connection.info.server_version

    @property
    def superusers(self) -> set[str]:
        rows = self.connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall()
        return {name for (name,) in rows}

    def quoted(self, name: str) -> str:
        return str(_one(self.connection, "SELECT quote_ident(%s)", name))

    def table_name(self, oid: int) -> str:
        query = (
            "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n"
            " ON n.oid = c.relnamespace WHERE c.oid = %s"
        )
        return str(_one(self.connection, query, oid))

    def has_rights_of(self, group: str) -> bool:
        """Does it inherit them?"""
        return self._asks("SELECT pg_has_role(%s::name, %s::name, 'USAGE')", group)

    def is_member_of(self, group: str) -> bool:
        return self._asks("SELECT pg_has_role(%s::name, %s::name, 'MEMBER')", group)

    def may_database(self, right: str) -> bool:
        return self._asks("SELECT has_database_privilege(%s::name, current_database(), %s)", right)

    def may_schema(self, schema: str, right: str, *, of: str | None = None) -> bool:
        """May the role, or the role ``of``?"""
        query = "SELECT has_schema_privilege(%s::name, n.oid, %s) FROM pg_namespace n WHERE n.nspname = %s"
        if of is not None:
            return bool(_one(self.connection, query, of, right, schema))
        return self._asks(query, right, schema)

    def may_table(self, oid: int, right: str) -> bool:
        return self._asks("SELECT has_table_privilege(%s::name, %s::oid, %s)", oid, right)

    def may_execute(self, function: str) -> bool:
        return self._asks(
            "SELECT has_function_privilege(%s::name, %s::regprocedure::oid, 'EXECUTE')", function
        )

    def owners(self, schema: str, tables: Iterable[str]) -> list[Owner]:
        """Of the tables that exist, and of their partitions and inheriting tables."""
        rows = self.connection.execute(_OWNERS, [schema, list(tables)]).fetchall()
        return [Owner(name=name, is_superuser=is_super, example=table) for name, is_super, table in rows]

    def journal(self) -> tuple[str, bool, bool]:
        """Who owns it; may the role use its schema, and read and write all its tables?"""
        row = self.connection.execute(_JOURNAL).fetchone()
        assert row is not None  # asked only where a journal exists
        owner, _, tables = row
        rights = ("SELECT", "INSERT", "UPDATE", "DELETE")
        may_write = all(self.may_table(oid, right) for oid in tables for right in rights)
        return owner, self.may_schema("online_migrate", "USAGE"), may_write

    def _asks(self, query: str, *params: Any) -> bool:
        return self.exists and bool(_one(self.connection, query, self.name, *params))


def _one(connection: Connection, query: str, *params: Any) -> Any:
    row = connection.execute(query.encode(), params or None).fetchone()
    return None if row is None else row[0]
