"""verify_owner and verify_sql: what is wrong is found, with its place, and nothing is written."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from online_migrate.errors import VerificationFailed
from online_migrate.events import LongStatement
from online_migrate.postgres import long_statement
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

OWNERS = plan_of("verify_owner: {tables: [users, transactions], column: bot_id}")
FILLED = """
    ALTER TABLE users ADD COLUMN bot_id integer DEFAULT 1;
    ALTER TABLE transactions ADD COLUMN bot_id integer DEFAULT 1;"""


@pytest.mark.parametrize(
    ("change", "table", "words"),
    [
        (("UPDATE transactions SET bot_id = 2 WHERE id = {id} RETURNING"
            " id"), "transactions", "as users, along transactions_user_id_fkey"),
        (("UPDATE transactions SET bot_id = NULL WHERE id = {id} RETURNING"
            " id"), "transactions", "no row without an owner"),
        (("UPDATE users SET bot_id = 2 WHERE referred_by_id IS NOT NULL RETURNING"
            " id"), "users", "as users, along users_referred_by_id_fkey"),
    ],
    ids=["another owner than its parent", "no owner", "two rows of one table"],
)  # fmt: skip
def test_a_wrong_owner_is_found(site_of: OpenSite, change: str, table: str, words: str) -> None:
    """With the table, the foreign key and the place of the row; exit 5, and verify says the same."""
    site = site_of(OWNERS)
    site.sql(FILLED)
    step = site.step(table=table)
    site.execute(step)
    changed = site.sql(change.format(id=site.one("SELECT min(id) FROM transactions")))
    with pytest.raises(VerificationFailed) as wrong:
        site.execute(step)
    said = rf"{table}\.bot_id: not as promised \({words}\): \d+ rows?, for example id = "
    assert re.search(said, wrong.value.message)
    assert any(f"id = {id_}" in wrong.value.message for (id_,) in changed)
    assert words in " ".join(f.fact for f in site.verify(step))


EXCEPT = "verify_owner: {tables: [users, transactions], column: bot_id, except: [NAME]}"


def test_a_foreign_key_is_left_out_by_name(site_of: OpenSite) -> None:
    """Its rows are compared neither at check nor by the proof."""
    site = site_of(plan_of(EXCEPT.replace("NAME", "transactions_user_id_fkey")))
    site.sql(FILLED + "UPDATE transactions SET bot_id = 2;")
    transactions = site.step(table="transactions")
    assert [f.code for f in site.preflight(transactions)] == ["reads_all"]
    site.execute(transactions)


def test_a_name_that_is_no_foreign_key_stops(site_of: OpenSite) -> None:
    """And the key that was meant is compared, at check, by the values that the rows have."""
    site = site_of(plan_of(EXCEPT.replace("NAME", "nokey")))
    site.sql(FILLED + "UPDATE transactions SET bot_id = 2;")
    codes = [f.code for f in site.preflight(site.step(table="transactions"))]
    assert codes == ["reads_all", "unknown_foreign_key", "owners_disagree"]


def check(site_of: OpenSite, folder: Path, text: str) -> str:
    """What a file of checks finds, by execute and by verify."""
    (folder / "checks.sql").write_text(text)
    site = site_of(plan_of("verify_sql: checks.sql"), folder=folder)
    before = site.rows()
    found = "\n".join(f.fact for f in site.verify())
    with pytest.raises(VerificationFailed) if found else nullcontext(None) as refused:
        site.execute()
    assert refused is None or refused.value.message == found
    assert site.rows() == before
    return found


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("-- expect: 2\nSELECT 1", "expected and not found: 2; found and not expected: 1"),
        ("-- expect: (0 rows)\nSELECT 1", "expected and not found: nothing; found and not expected: 1"),
        ("-- expect: 1\nSELECT 1 WHERE false", "expected and not found: 1; found and not expected: nothing"),
        (("-- expect: 1\n-- expect: 2\nVALUES (2),"
            " (1)"), "expected and not found: 1; 2; found and not expected: 2; 1"),
        ("-- expect: 1\nVALUES (1), (1)", "expected and not found: 1; found and not expected: 1; 1"),
        (("-- expect: NULL | x\nSELECT '',"
            " 'x'"), "expected and not found: NULL | x; found and not expected:  | x"),
        (("-- expect: 1\nSELECT count(*) FROM"
            " nowhere"), 'the server refuses the query: relation "nowhere" does not exist'),
        (("-- expect: 1\nSELECT"
            " nextval('users_id_seq')"), "cannot execute nextval() in a read-only transaction"),
    ],
    ids=["another", "too many", "none", "another order", "twice", "null", "no such table", "a query that writes"],
)  # fmt: skip
def test_a_wrong_answer_is_told(site_of: OpenSite, tmp_path: Path, query: str, words: str) -> None:
    """File, line, title, what was expected and what was found; a query that the server refuses is reported in
    the same way.
    """
    message = check(site_of, tmp_path, f"-- My title\n{query};")
    first = query.count("-- expect") + 2
    assert message.startswith(f"checks.sql:{first}: My title: ")
    assert words in message


def test_answers_are_compared_as_psql_prints_them(site_of: OpenSite, tmp_path: Path) -> None:
    """Truths, nulls, arrays, json, intervals, dates, numbers: as an operator copies them from psql."""
    text = (
        '-- expect: t | NULL | {a,"b c"} | {"a": [1, null]} | 1 day 02:00:00 | 2026-01-09 00:00:00 | 1.50 |'
        " \\x01\n"
        """SELECT true, NULL, ARRAY['a', 'b c'], '{"a": [1, null]}'::json, '26:00'::interval + '1 day' - '24:00'::interval,"""
        " '2026-01-09'::timestamp, 1.50, '\\x01'::bytea"
    )
    assert check(site_of, tmp_path, text) == ""


def test_the_proof_of_owners_ends_by_itself(site_of: OpenSite) -> None:
    """It reads whole tables in one snapshot: said at check, bounded by locks.long_statement, and not proven
    is not passed.
    """
    site = site_of(
        plan_of("verify_owner: {table: slow, column: bot_id}", head="locks: {long_statement: 1ms}")
    )
    site.sql("CREATE TABLE slow AS SELECT n, 1 AS bot_id FROM generate_series(1, 500000) n")
    (finding,) = site.preflight()
    assert finding.code == "reads_all"
    with pytest.raises(VerificationFailed, match=r"slow\.bot_id: not proven"):
        site.execute()


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("verify_sql: {file: slow.sql}", "verify_sql slow.sql"),
        ("verify_owner: {table: slow, column: bot_id}", "verify_owner bot_id"),
        ("set_not_null: {table: slow, column: bot_id}", "no row of slow without bot_id"),
    ],
)
def test_a_proof_that_takes_long_is_told(
    site_of: OpenSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, says: str
) -> None:
    """No view of the server has its share: the operator sees that it reads, and for how long, and no alert
    wakes him.
    """
    monkeypatch.setattr(long_statement, "REPORT_EVERY_S", 0.002)
    (tmp_path / "slow.sql").write_text("-- expect: t\nSELECT bool_and(bot_id > 0) FROM slow")
    site = site_of(plan_of(step), folder=tmp_path)
    site.sql("CREATE TABLE slow AS SELECT n, 1 AS bot_id FROM generate_series(1, 500000) n")
    site.execute()
    reported = site.heard.of(LongStatement)
    assert (says, "proving", None) in {(t.statement, t.phase, t.share_done) for t in reported}
