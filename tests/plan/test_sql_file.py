"""SQL files: where statements end, what they make, and queries with their answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from online_migrate.errors import PlanError
from online_migrate.plan.sql_file import Check, SqlKind, load_checks, read_sql, split_sql

FILE = Path("shop.sql")
PLANS = Path(__file__).parents[2] / "plans"


def test_a_semicolon_ends_a_statement_only_where_postgresql_says_so() -> None:
    """Texts, dollar quotes, comments and names may contain semicolons; no function is cut in two."""
    text = """\
SELECT 'a;b', $$c;d$$, $x$ $$;$$ $x$; -- a ; comment
/* ; */ DO $body$ BEGIN PERFORM 1; END $body$;

SELECT "odd;name" FROM t"""
    statements = split_sql(text, path=FILE)
    assert [(s.line, s.text) for s in statements] == [
        (1, "SELECT 'a;b', $$c;d$$, $x$ $$;$$ $x$"),
        (2, "DO $body$ BEGIN PERFORM 1; END $body$"),
        (4, 'SELECT "odd;name" FROM t'),
    ]


def test_lines_are_right_behind_letters_of_many_bytes_and_comments() -> None:
    """The parser counts bytes, people count lines."""
    text = "-- тенант ✓\n\nSELECT 'é';\n/* ü\n */\n\n  SELECT 2;\n"
    assert [(s.line, s.text) for s in split_sql(text, path=FILE)] == [(3, "SELECT 'é'"), (7, "SELECT 2")]


def test_what_a_statement_makes_is_known() -> None:
    """Tables, their indexes and the tables that their foreign keys lock are read by
    PostgreSQL's own parser.
    """
    text = """\
CREATE TABLE "Bots" (id serial PRIMARY KEY, n BIGSERIAL, by int REFERENCES users(id), again int REFERENCES
  users,
  self int REFERENCES "Bots", CONSTRAINT k FOREIGN KEY (n) REFERENCES other.t (a));
CREATE UNIQUE INDEX IX ON Bots (id) WHERE id > 1;
CREATE INDEX CONCURRENTLY ON s.bots (id);
ALTER TABLE bots ADD COLUMN x int REFERENCES y;
VALUES (1);
SHOW work_mem;
"""
    made, index, nameless, other, *queries = split_sql(text, path=FILE)
    assert (made.kind, made.table, made.schema) == (SqlKind.CREATE_TABLE, "Bots", None)
    assert made.references == ("users", "other.t")
    assert made.serial_columns == ("id", "n")
    assert (index.kind, index.table, index.index) == (SqlKind.CREATE_INDEX, "bots", "ix")
    assert not index.is_concurrent
    assert (nameless.index, nameless.schema, nameless.is_concurrent) == (None, "s", True)
    assert other.kind is SqlKind.OTHER
    assert [q.kind for q in queries] == [SqlKind.QUERY, SqlKind.QUERY]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "SELECT 1;\n\nSELCT 2;\n",
            'shop.sql:3:1: PostgreSQL cannot parse this: syntax error at or near "SELCT"',
        ),
        (
            "SELECT 'é' AS é FRM t;",
            'shop.sql:1:17: PostgreSQL cannot parse this: syntax error at or near "FRM"',
        ),
        ("SELECT 1;\nSELECT (", "shop.sql:2:9: PostgreSQL cannot parse this: syntax error at end of input"),
        ("SELECT 1;\nSELECT 'a", "shop.sql:2:8: PostgreSQL cannot parse this: unterminated quoted string"),
        ("SELECT 1;\n\0", "shop.sql:2: the SQL contains a zero byte"),
    ],
)
def test_a_syntax_error_is_told_by_its_line(text: str, expected: str) -> None:
    """It is found when the plan is read, not in the middle of the run."""
    with pytest.raises(PlanError) as caught:
        split_sql(text, path=FILE)
    assert caught.value.message.startswith(expected)


def test_a_file_without_statements_has_none() -> None:
    """Comments alone are no statement, and no error of the parser's."""
    assert split_sql("-- later\n;;\n", path=FILE) == ()


def test_queries_are_read_with_their_answers() -> None:
    """One comment above a query is its title and its rows, and reads as prose."""
    text = """\
-- A header, which belongs to no query.

-- The bots and
-- how many users each has.
-- expect: master | 7
-- expect: second | NULL
SELECT name, users -- not this | one
FROM bots;

-- expect: (0 rows)
SELECT 1 WHERE false"""
    assert load_checks(text, path=FILE) == (
        Check(
            title="The bots and how many users each has.",
            sql="SELECT name, users -- not this | one\nFROM bots",
            expected=(("master", "7"), ("second", None)),
            line=7,
        ),
        Check(title="query of line 11", sql="SELECT 1 WHERE false", expected=(), line=11),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1;", "shop.sql:1: this query has no expected answer"),
        ("-- expect: 1\n\nSELECT 1;", "shop.sql:3: this query has no expected answer"),
        ("-- expect 1\nSELECT 1;", "shop.sql:2: this query has no expected answer"),
        ("-- expect: 1\nDELETE FROM users;", "shop.sql:2: this is not a query"),
        (
            "-- expect: a | b\n-- expect: c\nSELECT 1;",
            "shop.sql:3: the expected rows differ in their number of columns",
        ),
        ("-- expect: 1\n", "shop.sql: the file contains no query"),
    ],
)
def test_a_check_that_proves_nothing_is_refused(text: str, expected: str) -> None:
    """A query without an answer would pass whatever it finds; a statement that writes is no check."""
    with pytest.raises(PlanError) as caught:
        load_checks(text, path=FILE)
    assert caught.value.message == expected
    assert caught.value.remedy


def test_a_file_is_looked_for_beside_the_plan(tmp_path: Path) -> None:
    """A plan and its files can be moved together, and run from anywhere."""
    (tmp_path / "a.sql").write_text("SELECT 1")
    (tmp_path / "latin.sql").write_bytes(b"SELECT '\xe9'")
    assert read_sql(tmp_path, "a.sql") == ("SELECT 1", tmp_path / "a.sql")
    with pytest.raises(ValueError, match=r"the file b\.sql cannot be read: No such file or directory"):
        read_sql(tmp_path, "b.sql")
    with pytest.raises(ValueError, match=r"the file latin\.sql is not UTF-8 text"):
        read_sql(tmp_path, "latin.sql")


def test_the_shop_gets_seven_tables_and_sixteen_indexes() -> None:
    """Each table comes after those that it references, and each index after its table."""
    path = PLANS / "multi_tenant.sql"
    statements = split_sql(path.read_text(), path=path)
    made: list[str] = ["users", "transactions"]
    for statement in statements:
        if statement.kind is SqlKind.CREATE_TABLE:
            assert set(statement.references) <= set(made)
            made.append(str(statement.table))
        else:
            assert statement.kind is SqlKind.CREATE_INDEX
            assert statement.table == made[-1]
        assert statement.schema is None
    assert made[2:] == [
        "bots",
        "bot_feature_flags",
        "bot_configurations",
        "tenant_payment_cards",
        "bot_plans",
        "card_to_card_payments",
        "zarinpal_payments",
    ]
    assert sum(s.kind is SqlKind.CREATE_INDEX for s in statements) == 16


def test_the_shop_is_verified_by_four_queries() -> None:
    """What the schema's design has verified, and that no table found later was forgotten."""
    path = PLANS / "multi_tenant.verify.sql"
    checks = load_checks(path.read_text(), path=path)
    assert [(len(c.expected), c.title.split(".")[0]) for c in checks] == [
        (7, "The seven new tables exist"),
        (7, "bots has its four indexes, its key and its two uniques, and no other"),
        (
            36,
            "Every table that belongs to a bot says to which: the thirty of the shop and six of the new ones",
        ),
        (0, "No table lets bot_id be missing"),
    ]
