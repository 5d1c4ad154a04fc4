"""Does a new unique index take the place of one that is named: partial, over expressions, or an exclusion?"""

from __future__ import annotations

from psycopg import sql

from online_migrate.operations.contract.base import Place
from online_migrate.operations.schema_before import schema_before

_ASSERT = """BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_index n JOIN pg_catalog.pg_index o ON o.indrelid = n.indrelid,
      LATERAL (SELECT pg_catalog.array_agg(pg_catalog.pg_get_indexdef(o.indexrelid, k, false)) AS keys
                 FROM pg_catalog.generate_series(1, o.indnkeyatts::int) k) old,
      LATERAL (SELECT pg_catalog.array_agg(pg_catalog.pg_get_indexdef(n.indexrelid, k, false)) AS keys,
                      pg_catalog.bool_and(coalesce(
                        pg_catalog.pg_get_indexdef(n.indexrelid, k, false) = ANY (old.keys)
                        OR a.attnotnull AND NOT EXISTS (
                          SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = n.indrelid
                             AND c.contype = 'n' AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated),
                        false)) AS are_not_null
                 FROM pg_catalog.generate_series(1, n.indnkeyatts::int) k
                 LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = n.indrelid AND a.attnum = n.indkey[k - 1]
                  AND a.attnum > 0) new
     WHERE n.indexrelid = pg_catalog.to_regclass({new}) AND o.indexrelid = pg_catalog.to_regclass({old})
       AND n.indisunique AND n.indimmediate AND n.indisvalid AND n.indisready AND n.indislive
       AND (n.indpred IS NULL OR pg_catalog.pg_get_expr(n.indpred, n.indrelid)
                               = pg_catalog.pg_get_expr(o.indpred, o.indrelid))
       AND new.keys @> old.keys AND n.indnkeyatts > o.indnkeyatts
       AND (new.are_not_null OR coalesce((pg_catalog.to_jsonb(n) ->> 'indnullsnotdistinct')::bool, false)))
  THEN RAISE EXCEPTION '%', {message} USING ERRCODE = {state};
  END IF;
END"""


def assert_succeeded(
    *, old: sql.Identifier, new: sql.Identifier, message: str, sqlstate: str
) -> sql.Composed:
    """A DO that fails with ``sqlstate`` unless ``new`` is valid, and has the keys of ``old`` and more, these
    NOT NULL, over the same rows.
    """
    body = sql.SQL(_ASSERT).format(
        old=sql.Literal(old.as_string(None)),
        new=sql.Literal(new.as_string(None)),
        message=sql.Literal(message),
        state=sql.Literal(sqlstate),
    )
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))


def missing_successor(place: Place, *, old: str, new: str) -> str:
    """Why ``new`` cannot take the place of ``old``, as far as names and columns tell; empty where it can."""
    table = schema_before(place).table(place.table)
    then = None if table is None else table.indexes.get(new)
    ends = None if table is None else table.indexes.get(old)
    if then is None or not then.is_unique:
        return f"no unique index {new} exists, and no earlier step builds it"
    if ends is None:  # swapped already where the new one exists
        missing = f"{place.table} has no unique or exclusion constraint {old}"
        return "" if then.built_by is None else missing
    if then.has_predicate and not ends.has_predicate:
        return f"{new} is partial, so that it does not keep all duplicates out"
    if len(then.columns) <= len(ends.columns) or not set(ends.columns) <= set(then.columns):
        return f"{new} does not have the keys of {old} and more"
    return ""
