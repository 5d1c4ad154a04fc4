"""What the copies of a rehearsal say of foreign keys, and of expressions that name what the copies rename."""

from __future__ import annotations

import psycopg
from psycopg import sql

from online_migrate.backfill.value_params import ExpressionParams
from online_migrate.engine.check.rehearsal_scope import Link, Scope
from online_migrate.operations.contract.base import Place
from online_migrate.operations.contract.effects import FillsColumn
from online_migrate.postgres.catalog import Catalog
from online_migrate.postgres.stand_ins import StandIns


def key_of(catalog: Catalog, place: Place, name: str | None) -> Link | None:
    """The foreign key of that name."""
    table = catalog.table(place.table)
    keys = () if table is None else table.foreign_keys
    key = next((k for k in keys if k.name == name), None)
    if key is None or key.ref_table is None:
        return None
    return Link(child=place.table, column=key.columns[0], parent=key.ref_table, key=key.ref_columns[0])


def has_orphans(copies: StandIns, scope: Scope, link: Link, place: Place) -> bool:
    """Has a row of the copy a key that neither the parent nor its copy has?"""
    live = scope.live(link.parent)
    parents = [copies.name(link.parent)]
    parents += [] if live is None else [sql.Identifier(live.schema, live.name)]
    absent = sql.SQL(" AND ").join(
        sql.SQL("NOT EXISTS (SELECT FROM {parent} p WHERE p.{key} = c.{column})").format(
            parent=parent, key=sql.Identifier(link.key), column=sql.Identifier(link.column)
        )
        for parent in parents
    )
    query = sql.SQL("SELECT FROM {} c WHERE c.{} IS NOT NULL AND {} LIMIT 1").format(
        place.sql_table, sql.Identifier(link.column), absent
    )
    return copies.connection.execute(query).fetchone() is not None


def names_the_table(error: psycopg.Error, place: Place) -> bool:
    """May an expression of the plan name the table's schema or its row type, which are the copy's own here?

    Its text is parsed on the table itself by the checks of the backfill.
    """
    return str(error.sqlstate).startswith("42") and any(
        isinstance(e, FillsColumn) and isinstance(e.value, ExpressionParams)
        for e in place.effects.of(place.step)
    )
