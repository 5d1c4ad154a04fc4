"""add_check: rows that break it, what already has its name, what a crash left, tables below and above."""

from __future__ import annotations

import pytest

from online_migrate.errors import PlanError, VerificationFailed
from online_migrate.findings import Severity
from online_migrate.operations.add_check import AddCheck
from online_migrate.operations.contract.state import State
from tests.operations.conftest import OpenSite
from tests.operations.site import plan_of

NOTES = "CREATE TABLE notes (id int PRIMARY KEY, n int); INSERT INTO notes VALUES (1, 5), (2, NULL), (3, 7);"
STEP = "add_check: {table: notes, name: n_positive, check: n > 0}"
BROKEN = "INSERT INTO notes VALUES (4, -1), (5, 0);"
ADDED = "ALTER TABLE notes ADD CONSTRAINT n_positive CHECK (n > 0) NOT VALID;"


def test_rows_that_break_it_are_listed_by_key_and_stop_the_run(site_of: OpenSite) -> None:
    """NULL breaks no check.  Nothing is added, so the application can go on with these rows."""
    site = site_of(plan_of(STEP))
    site.sql(NOTES + BROKEN)
    (finding,) = site.stops()
    assert (finding.code, "id = 4; id = 5" in finding.fact) == ("check_broken", True)
    with pytest.raises(VerificationFailed, match="id = 4; id = 5; nothing was changed"):
        site.execute()
    assert site.state() is State.ABSENT
    site.sql("UPDATE notes SET n = 1 WHERE n <= 0")
    site.execute()
    assert site.verify() == []


def test_behind_a_gate_or_before_a_fill_broken_rows_only_warn(site_of: OpenSite) -> None:
    site = site_of(plan_of(STEP, stage="gate: {approval: required}"))
    site.sql(NOTES + BROKEN)
    assert [(f.code, f.severity) for f in site.preflight()] == [("check_broken", Severity.WARN)]
    fill = "backfill: {table: notes, column: n, value: 1}"
    step = "add_check: {table: notes, name: n_there, check: n IS NOT NULL}"
    site = site_of(plan_of(fill, step, name="filled"))
    assert [(f.code, f.severity) for f in site.preflight()] == [("check_broken", Severity.WARN)]


def test_a_row_written_between_proof_and_check_ends_with_the_check_dropped(
    site_of: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every UPDATE of that row would fail."""
    site = site_of(plan_of(STEP))
    site.sql(NOTES)
    prove = AddCheck._prove

    def prove_and_write(*args: object) -> None:
        prove(*args)  # type: ignore[arg-type]
        site.sql(BROKEN)

    monkeypatch.setattr(AddCheck, "_prove", prove_and_write)
    with pytest.raises(VerificationFailed, match="id = 4; id = 5; the check was dropped again"):
        site.execute()
    assert site.state() is State.ABSENT
    site.sql("UPDATE notes SET id = 6 WHERE id = 5")


def test_a_check_that_was_not_valid_before_stays_when_rows_break_it(site_of: OpenSite) -> None:
    """It may be the application's own; the error names the rows, and how to drop it."""
    site = site_of(plan_of(STEP))
    site.sql(NOTES + BROKEN + ADDED)
    assert site.state() is State.PARTIAL
    with pytest.raises(VerificationFailed, match=r'id = 4; id = 5; .*DROP CONSTRAINT "n_positive"'):
        site.execute()
    assert site.state() is State.PARTIAL
    site.sql("DELETE FROM notes WHERE n <= 0")
    site.execute()
    assert site.state() is State.DONE


def test_an_equal_check_is_adopted_whatever_its_name(site_of: OpenSite) -> None:
    site = site_of(plan_of(STEP))
    site.sql(NOTES + "ALTER TABLE notes ADD CONSTRAINT older CHECK (n > 0) NOT VALID")
    assert site.state() is State.PARTIAL
    site.execute()
    assert site.one("SELECT string_agg(conname, ',') FROM pg_constraint WHERE contype = 'c'"
                    " AND conrelid = 'notes'::regclass") == "older"  # fmt: skip
    assert (site.state(), site.verify()) == (State.DONE, [])
    site.sql("ALTER TABLE notes DROP CONSTRAINT older")
    assert [f.code for f in site.verify()] == ["check_gone"]


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("m > 0", 'column "m" does not exist'),
        ("n > (SELECT 1)", "cannot use subquery"),
        ("n + 1", "must be type boolean"),
    ],
)
def test_what_the_server_refuses_is_named_before(site_of: OpenSite, check: str, words: str) -> None:
    site = site_of(plan_of(f"add_check: {{table: notes, name: c, check: '{check}'}}"))
    site.sql(NOTES)
    (finding,) = site.stops()
    assert finding.code == "check_refused"
    assert words in finding.fact


@pytest.mark.parametrize(
    "check", ["n > 0 -- of old", "true) -- ", "true) NOT VALID, DROP COLUMN n --", "n >", "n > 0; SELECT 1"]
)
def test_what_is_not_one_condition_is_refused_with_the_plan(site_of: OpenSite, check: str) -> None:
    with pytest.raises(PlanError, match="check"):
        site_of(plan_of(f"add_check: {{table: notes, name: c, check: '{check}'}}"))


def test_a_column_of_an_earlier_step_is_known(site_of: OpenSite) -> None:
    add = "add_column: {table: notes, column: m, type: integer, new_rows: 3}"
    site = site_of(plan_of(add, "add_check: {table: notes, name: c, check: m > n OR m > 0}"))
    site.sql(NOTES)
    assert site.preflight() == []
    assert site.contradictions() == []
    site.execute_all()
    assert site.verify() == []


def test_quotes_in_names_and_percent_in_the_text(site_of: OpenSite) -> None:
    step = """add_check: {table: 'my "notes"', name: 'it''s "x"', check: '"a ""b"" %s" NOT LIKE ''5%{}'''}"""
    site = site_of(plan_of(step))
    site.sql('CREATE TABLE "my ""notes""" ("a ""b"" %s" text); INSERT INTO "my ""notes""" VALUES (\'4%\')')
    assert (site.preflight(), site.contradictions()) == ([], [])
    site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])


def test_a_function_of_the_plans_schema_is_found(site_of: OpenSite) -> None:
    site = site_of(plan_of("add_check: {table: notes, name: c, check: is_good(n)}"))
    site.sql(NOTES + "CREATE FUNCTION is_good(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 > 0'")
    assert site.stops() == []
    site.execute()
    assert site.state() is State.DONE


PARENT = """CREATE TABLE notes (id int PRIMARY KEY, n int); CREATE TABLE old_notes () INHERITS (notes);
    INSERT INTO old_notes VALUES (9, -5);"""


def test_rows_below_are_named_with_their_table(site_of: OpenSite) -> None:
    site = site_of(plan_of(STEP))
    site.sql(PARENT)
    (finding,) = site.stops()
    assert "ctid = (0,1) (in public.old_notes)" in finding.fact


def test_another_check_of_that_name_below_is_a_conflict(site_of: OpenSite) -> None:
    site = site_of(plan_of(STEP))
    site.sql(PARENT + "ALTER TABLE old_notes ADD CONSTRAINT n_positive CHECK (n < 100)")
    assert site.state() is State.CONFLICT
    (finding,) = site.stops()
    assert (finding.code, finding.fact.startswith("old_notes should have")) == ("check_conflict", True)


def test_a_check_inherited_from_a_parent_is_done(site_of: OpenSite) -> None:
    """And one that a table below has already is merged with that of its parent."""
    site = site_of(plan_of(STEP.replace("notes", "old_notes")))
    site.sql(PARENT + "UPDATE old_notes SET n = 1;" + ADDED)
    assert site.state() is State.PARTIAL
    site.execute()
    assert site.state() is State.DONE
    site = site_of(plan_of(STEP, name="parent"))
    site.sql("ALTER TABLE notes DROP CONSTRAINT n_positive;"
             " ALTER TABLE old_notes ADD CONSTRAINT n_positive CHECK (n > 0)")  # fmt: skip
    assert site.stops() == []
    site.execute()
    assert (site.state(), site.verify()) == (State.DONE, [])
