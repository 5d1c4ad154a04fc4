"""What explain prints is what run executes: batch and proof, to the letter."""

from __future__ import annotations

import psycopg
import pytest

from online_migrate.events import Event, StepEnded
from tests.backfill.plans import Ears, explained, run_plan
from tests.backfill.tables import ask, do, make_table

NOTING = """
CREATE TABLE noted (query text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO noted
  VALUES (current_query()); RETURN NULL; END $$;
CREATE TRIGGER note AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()"""
"""what the client has sent, as the server has it (manual, 9.26: current_query)"""


class LastStatement(Ears):
    """Asks the server, at the end of the step, what the work session has run last."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._dsn = dsn
        self.text = ""

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, StepEnded):
            query = (
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND"
                " application_name LIKE '%% work'"
            )
            self.text = str(ask(self._dsn, query))


@pytest.mark.parametrize(
    ("more", "names"),
    [
        pytest.param("", '"id"::text', id="a key of one column"),
        pytest.param(
            'ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (v,'
            ' "id")', '"v"::text, "id"::text', id="of two"
        ),
        pytest.param("ALTER TABLE t DROP CONSTRAINT t_pkey", '"ctid"::text', id="none"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["1", "{sql: user_id % 7, else: 9}"], ids=["a constant", "an expression"])
def test_explain_prints_what_run_executes(database: str, more: str, names: str, value: str) -> None:
    """Read from the server: the batch by a trigger's current_query(), the proof from pg_stat_activity."""
    make_table(database, 300, more=more)  # a table of one batch: explain shows one slice, a run takes many
    fill = f"backfill: {{table: t, column: c, value: {value}}}"
    batch, proof = explained(database, fill)
    do(database, NOTING)
    last = LastStatement(database)
    run_plan(database, fill, ears=last)
    assert last.text == proof
    assert proof == f'SELECT {names} FROM ONLY "public"."t" WHERE "c" IS NULL LIMIT 1000'
    assert ask(database, "SELECT count(*) FROM noted") == 1
    assert f" {batch} RETURNING 1\n; " in str(ask(database, "SELECT query FROM noted"))


def test_the_proof_of_explain_finds_what_run_s_would(database: str) -> None:
    """It can be run manually: a row without a value, by its key."""
    make_table(database, 30, more="UPDATE t SET c = 1 WHERE id <> 7")
    _, proof = explained(database, "backfill: {table: t, column: c, value: 1}")
    with psycopg.connect(database) as connection:
        assert connection.execute(proof.encode()).fetchall() == [("7",)]
