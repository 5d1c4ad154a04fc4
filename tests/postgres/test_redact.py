"""What is shown of others' statements holds no value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.postgres.redact import SHOWN_CHARACTERS, redact

SECRET = "hunter2"


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT * FROM users WHERE password = '{SECRET}'",
        f"SELECT * FROM users WHERE password = E'\\'{SECRET}' AND id = 4711",
        f"SELECT $${SECRET}$$",
        f"SELECT $tag$ it's {SECRET} $tag$ FROM t",
        f"SELECT 1 -- {SECRET}\n FROM t",
        f"SELECT /* {SECRET} */ 1",
        f"SELECT '{SECRET}",
        f"SELECT /* {SECRET}",
        f"SELECT N'{SECRET}', x'4711'",
        f"SELECT 'C:\\' || '{SECRET}'",
        f"SELECT 'C:\\', '{SECRET}', 'D:\\'",
        f"SELECT 'it\\'s {SECRET}'",
        f"SELECT date'2020-01-01\\' || '{SECRET}'",
        f"SELECT E'a'\n'\\'{SECRET}'",
        f"SELECT E'a' -- x\n  'b\\'{SECRET}'",
        f"SELECT E'a\\\\' || '{SECRET}'",
        f"SELECT E'{SECRET}\\",
        f"SELECT /* a /* b */ {SECRET} */ 1",
        f"SELECT /* /* */ {SECRET}",
        f"SELECT U&'{SECRET}\\0041'",
        f"SELECT $é$ {SECRET} $é$",
        f"SELECT $a$ {SECRET} $$ $a",
        f"SELECT a$b$, '{SECRET}', c$b$",
        f"SELECT 1 AS a€e'\\', '{SECRET}'",
    ],
)
def test_literals_and_comments_are_gone(query: str) -> None:
    """Quoted in any way, commented, or cut off in the middle: no value is left."""
    shown = redact(query)
    assert SECRET not in shown
    assert "4711" not in shown


def test_names_stay() -> None:
    """What an operator recognises the statement by is left: names, also those with digits, and parameters."""
    assert redact('SELECT a1, $1 FROM  t2\nWHERE "c3" = 5') == 'SELECT a1, $1 FROM t2 WHERE "c3" = ?'


def test_a_terminal_obeys_no_statement() -> None:
    """Control characters of a quoted name are written out."""
    assert redact('SELECT "a\x1b[2J" FROM t') == r'SELECT "a\x1b[2J" FROM t'


@given(st.text(max_size=400))
def test_any_text(query: str) -> None:
    """One short line, whatever comes."""
    shown = redact(query)
    assert len(shown) <= SHOWN_CHARACTERS
    assert "\n" not in shown


@given(st.text(alphabet=st.characters(exclude_characters="'\\"), max_size=50))
def test_no_string_comes_through(value: str) -> None:
    """A value between quotes never comes through, whatever is in it."""
    assert redact(f"SELECT 'q{value}q' FROM t") == "SELECT ? FROM t"
