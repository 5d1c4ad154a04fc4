"""n: a name may hold whatever PostgreSQL lets it hold."""

from __future__ import annotations

import json

import pytest

from tests.cases.conftest import OpenTrial
from tests.cases.trial import RUNS, Case

NAMES = (
    pytest.param("a$compare$b", id="n1"),
    pytest.param("$1", id="n1-placeholder"),
    pytest.param("100 %s %(x)s", id="n1-percent"),
    pytest.param("{0} {x}", id="n1-braces"),
    pytest.param('say "hi"', id="n1-double-quotes"),
    pytest.param("it's", id="n1-quote"),
    pytest.param("back\\slash", id="n1-backslash"),
    pytest.param("Order Items", id="n1-space-and-capitals"),
    pytest.param("user", id="n1-keyword"),
    pytest.param("über_заказы_注文", id="n1-alphabets"),
    pytest.param("x" * 63, id="n1-63-bytes"),
    pytest.param("ü" * 31, id="n1-62-bytes-of-31-letters"),
    pytest.param("a.b", id="n1-dot"),
    pytest.param("a;--b", id="n1-semicolon"),
    pytest.param("a[1]", id="n1-brackets"),
    pytest.param(" lead", id="n1-leading-space"),
    pytest.param("public", id="n1-of-a-schema"),
    pytest.param("tab\tand\nline", id="n1-control-characters"),
)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", NAMES)
def test_n1_a_table_of_any_name_is_migrated(trial_of: OpenTrial, name: str) -> None:
    """Column, rows, index, foreign key, NOT NULL and swap on a table whose name and unique column have odd
    characters.
    """
    table, column = quoted(name), quoted(name[:20])
    setup = f"""
        CREATE TABLE owner_ (id int PRIMARY KEY); INSERT INTO owner_ VALUES (1);
        CREATE TABLE {table} (id serial PRIMARY KEY, {column} text NOT NULL UNIQUE);
        INSERT INTO {table} ({column}) SELECT 'c' || g FROM generate_series(1, 20) g;"""
    steps: list[dict[str, object]] = [
        {"add_column": {"table": name, "column": "c", "type": "integer", "new_rows": 1}},
        {"backfill": {"table": name, "column": "c", "value": 1}},
        {"add_foreign_key": {"table": name, "column": "c", "references": "owner_.id", "name": "odd_fkey"}},
        {"set_not_null": {"table": name, "column": "c"}},
        {"create_index": {"table": name, "name": "odd_new", "columns": ["c", name[:20]], "unique": True}},
        {"swap_unique": {"table": name, "from": [name[:20]], "to": "odd_new"}},
        {"analyze": {"table": name}},
    ]
    plan = json.dumps({"plan": "names", "stages": [{"stage": "here", "steps": steps}]})
    case = Case(
        name="n1", setup=setup, plan=plan, check=RUNS, after={f"SELECT count(*) FROM {table} WHERE c = 1": 20}
    )
    trial = trial_of(case)
    trial.prove(case)
    assert trial.call("verify").code == 0
    assert trial.call("status").code == 0


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("Shop Data", id="n2-space"),
        pytest.param('a"b$c', id="n2-quote-and-dollar"),
        pytest.param("läden", id="n2-alphabet"),
    ],
)
def test_n2_a_schema_of_any_name(trial_of: OpenTrial, name: str) -> None:
    """The plan's schema may be named like that, too."""
    setup = (
        f"CREATE SCHEMA {quoted(name)}; CREATE TABLE {quoted(name)}.t (id int PRIMARY KEY); INSERT INTO"
        f" {quoted(name)}.t VALUES (1);"
    )
    steps = [
        {"add_column": {"table": "t", "column": "Spalte 1", "type": "integer", "new_rows": 1}},
        {"backfill": {"table": "t", "column": "Spalte 1", "value": 1}},
        {"create_index": {"table": "t", "name": "Index 1", "columns": ["Spalte 1"]}},
    ]
    plan = json.dumps({"plan": "names", "schema": name, "stages": [{"stage": "here", "steps": steps}]})
    fact = f'SELECT count(*) FROM {quoted(name)}.t WHERE "Spalte 1" = 1'
    case = Case(name="n2", setup=setup, plan=plan, check=RUNS, after={fact: 1})
    trial_of(case).prove(case)
