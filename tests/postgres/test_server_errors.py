"""Every error of the server is one of ours, with a remedy, and none is a defect of
the program (exit code 1).
"""

from __future__ import annotations

from typing import Final

import psycopg
import pytest
from psycopg import sql

from online_migrate.errors import Defect
from online_migrate.postgres.server_errors import translate_error

NO_ERRORS: Final = ("00", "01", "02")
"""classes: success, warning, no data"""
STATES: Final = sorted(
    {
        kind.sqlstate
        for kind in vars(psycopg.errors).values()
        if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate is not None
    }
)
OF_OURS: Final = ("OM004", "OM005", "OM006", "OM008")
BY_CODE: Final = {
    3: ("42501", "42P01", "22012", "P0001", "54011", "57014", "XX000", "ZZ123"),
    4: ("55P03", "40P01", "40001", "55006"),
    5: ("23502", "23503", "23505", "23514", "23P01", "XX001", "XX002", "OM005", "OM008"),
    6: ("OM006",),
    8: ("08006", "57P01", "57P02", "57P03", "25006", "28000", "40003"),
    9: ("53100", "53200", "53300", "53400", "58030", "58P01", "F0000"),
}


def refused(connection: psycopg.Connection, state: str) -> psycopg.Error:
    """The error of that SQLSTATE, raised by the server."""
    block = sql.SQL("DO {}").format(sql.Literal(f"BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END"))
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(block)
    assert caught.value.sqlstate == state
    return caught.value


def test_no_sqlstate_ends_in_a_defect(database: str) -> None:
    """Appendix A, state by state, and states of others: an exit code that says what
    happened, and a remedy.
    """
    assert len({state[:2] for state in STATES}) > 35, "all classes are walked"
    with psycopg.connect(database, autocommit=True) as connection:
        for state in (*STATES, *OF_OURS, "ZZ123"):
            if state.startswith(NO_ERRORS):
                continue
            error = translate_error(refused(connection, state), "stage / step")
            assert error.exit_code in {3, 4, 5, 6, 8, 9}, state
            assert error.remedy or error.exit_code == 6, state  # the runner names who took over
            assert "stage / step: no" in error.message, state


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_each_kind_has_its_exit_code(database: str, code: int) -> None:
    """Refused, lock, rows, lease, connection, resources: a supervisor can tell them apart."""
    with psycopg.connect(database, autocommit=True) as connection:
        found = {state: translate_error(refused(connection, state)).exit_code for state in BY_CODE[code]}
    assert found == dict.fromkeys(BY_CODE[code], code)


def test_a_wrong_call_of_ours_is_a_defect(database: str) -> None:
    """What psycopg refuses before the server sees it is no error of the server."""
    with (
        psycopg.connect(database, autocommit=True) as connection,
        pytest.raises(psycopg.ProgrammingError) as caught,
    ):
        connection.execute("SELECT %s", [])
    assert isinstance(translate_error(caught.value), Defect)
