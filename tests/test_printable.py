"""Text of others is shown, never obeyed."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_migrate.printable import printable, printable_lines, printable_record


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("evil\x1b[2J\x07", r"evil\x1b[2J\x07"),
        ("\x9b31m", r"\u009b31m"),
        ("abc\u202edef\u2066", r"abc\u202edef\u2066"),
        ("a\r\nb", r"a\r\nb"),
        ("\x7f\u2028\U000e0001", r"\u007f\u2028\udb40\udc01"),
        ("Größe\u00a0→ 5\t€ 漢字", "Größe\u00a0→ 5\t€ 漢字"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    """ESC, C1, overrides of the writing direction and line breaks become escapes; letters stay."""
    assert printable(text) == shown


def test_no_line_of_a_text_looks_like_a_line_of_its_own() -> None:
    """A note with a line break cannot forge a log line."""
    assert printable_lines("note\n12:00:01  run \x07", indent="  ") == "note\n  12:00:01  run \\x07"
    assert printable_lines("said\nnext") == "said\nnext"


@given(st.text(max_size=50))
def test_nothing_but_tabs_is_left_that_a_terminal_obeys(text: str) -> None:
    """Whatever comes: no C0, C1 or DEL but tabs; and twice is as good as once."""
    shown = printable(text)
    assert not [c for c in shown if (ord(c) < 32 and c != "\t") or 127 <= ord(c) < 160]
    assert printable(shown) == shown


@given(st.text(max_size=50))
def test_a_line_of_json_stays_one(text: str) -> None:
    """Programs read the same values."""
    assert json.loads(printable(json.dumps({"a": text}, ensure_ascii=False))) == {"a": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    name: str
    parts: tuple[str, ...] = ()
    fields: dict[str, str] | None = None
    number: int = 1


def test_a_record_is_copied_with_its_texts_printable() -> None:
    """Every text in it, at any depth; the rest as it is."""
    record = Record(name="a\x1b", parts=("b\x07",), fields={"k": "c\x00"})
    assert printable_record((record, 5)) == (
        Record(name=r"a\x1b", parts=(r"b\x07",), fields={"k": r"c\x00"}),
        5,
    )
