"""Tables that reach a root, at any distance; those outside that reference a set."""

from __future__ import annotations

from dataclasses import replace

from online_migrate.demo.shop import FURTHER_TABLES
from online_migrate.discovery.reach import (
    outside_tables_referencing,
    paths_through_other_schemas,
    tables_referencing,
)
from online_migrate.postgres.catalog import Catalog, ConstraintInfo
from online_migrate.postgres.connection import Connector


def key(child: str, parent: str, *, schema: str = "public") -> ConstraintInfo:
    return ConstraintInfo(
        oid=1,
        name=f"{child}_fkey",
        kind="f",
        table=child,
        schema=schema,
        columns=("x",),
        is_valid=True,
        definition="",
        ref_schema="public",
        ref_table=parent,
        ref_columns=("id",),
        on_delete="a",
        index_oid=2,
    )


def test_nearest_first_and_each_once() -> None:
    """A diamond, a cycle and a self-reference end, and none is named twice; another schema's tables are not
    ours.
    """
    keys = [
        key("b", "a"), key("c", "a"), key("d", "b"), key("d", "c"), key("b", "d"), key("a", "a"), key("z", "y"),
        key("far", "a", schema="other"),
    ]  # fmt: skip
    assert tables_referencing("a", keys, "public") == ("b", "c", "d")
    assert tables_referencing("y", keys, "public") == ("z",)
    assert tables_referencing("nobody", keys, "public") == ()


def test_what_hangs_on_a_set() -> None:
    """With the parents that it references, so that the operator can answer."""
    keys = [key("b", "a"), key("x", "a"), key("x", "b"), key("y", "z")]
    assert outside_tables_referencing(["a", "b"], keys, "public") == {"x": ("a", "b")}


def test_paths_by_way_of_other_schemas() -> None:
    """At any distance, back into the plan's schema too; a cycle ends, and members of the set are not named."""
    keys = [
        key("b", "a"),
        key("far", "a", schema="other"),
        replace(key("near", "far"), ref_schema="other"),
        replace(key("far", "near", schema="other"), ref_schema="public"),
        replace(key("copy", "a", schema="other"), is_inherited=True),
    ]
    paths = (("other.far", "public.a"), ("public.near", "other.far", "public.a"))
    assert paths_through_other_schemas(["a"], keys, "public") == paths
    assert paths_through_other_schemas(["a", "near"], keys, "public") == paths[:1]
    assert paths_through_other_schemas(["a"], keys, "public", without=["near"]) == paths[:1]


def test_the_shops_further_tables(shop: str) -> None:
    """Seven tables reach users although the brief does not name them; the one that references promo_groups is
    a question.
    """
    with Connector(dsn=shop).open("test") as connection:
        keys = Catalog(connection).foreign_keys()
    reached = tables_referencing("users", keys, "public")
    assert set(FURTHER_TABLES) <= set(reached)
    assert "server_squad_promo_groups" not in reached
    assert "server_squad_promo_groups" in outside_tables_referencing(["promo_groups"], keys, "public")
