"""Statements without their literals: what is shown of another session's SQL may hold no value of the
application.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from online_migrate.printable import printable

SHOWN_CHARACTERS: Final = 120
"""of a statement: enough to recognise it, short enough for a line"""

_TOKEN: Final = re.compile(
    r"""(?xs)
    (?P<comment> --[^\n\r]* | /\*)
  | (?P<dollar> \$(?:[a-zA-Z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$)
  | (?P<name> "(?:[^"]|"")*(?:"|$) | \$[0-9]+)  # a quoted name, a parameter
  | (?P<quote> (?P<prefix>[eEbBxXnN]?)')
  | (?P<word> [a-zA-Z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
  | (?P<number> \.?[0-9][\w.]*)
    """
)
"""as PostgreSQL's scanner reads it (scan.l): every character above ASCII is a letter"""
_COMMENT_EDGE: Final = re.compile(r"/\*|\*/")
_GOES_ON: Final = re.compile(r"(?a)(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:\s|--[^\n\r]*[\n\r])*'")
"""a literal goes on after a line break (manual, 4.1.2.1 "String Constants")"""
_PLAIN: Final = re.compile(r"(?s)(?:[^']|'')*(?:'|$)")
_ESCAPED: Final = re.compile(r"(?s)(?:[^'\\]|''|\\.)*(?:'|\\?$)")


def redact(query: str) -> str:
    """The statement on one line, a ``?`` for each literal, number and comment.

    Whether a backslash escapes in ``'…'`` depends on the other session's standard_conforming_strings, which
    is not visible from here: what is a literal in either reading is not shown.
    """
    hidden = [False] * len(query)
    for backslash in (False, True):
        for begin, end in _literals(query, has_backslash=backslash):
            hidden[begin:end] = [True] * (end - begin)
    shown = "".join(
        "\0" if is_hidden else ("\ufffd" if c == "\0" else c)
        for c, is_hidden in zip(query, hidden, strict=True)
    )
    return printable(re.sub(r"\s+", " ", re.sub("\0+", "?", shown)).strip())[:SHOWN_CHARACTERS]


def _literals(query: str, *, has_backslash: bool) -> Iterator[tuple[int, int]]:
    """Begin and end of each literal, number and comment; one that was cut off ends with the text."""
    position = 0
    while (token := _TOKEN.search(query, position)) is not None:
        position = token.end()
        if token["comment"] == "/*":
            position = _end_of_comment(query, position)
        elif token["dollar"]:
            end = query.find(token["dollar"], position)
            position = len(query) if end < 0 else end + len(token["dollar"])
        elif token["quote"]:
            position = _end_of_string(
                query, position, has_backslash=has_backslash or token["prefix"] in set("eE")
            )
        elif token["name"] or token["word"]:
            continue
        yield token.start(), position


def _end_of_comment(query: str, position: int) -> int:
    """Comments of this kind nest (manual, 4.1.5)."""
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(query, position)) is not None:
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position if not depth else len(query)


def _end_of_string(query: str, position: int, *, has_backslash: bool) -> int:
    pattern = _ESCAPED if has_backslash else _PLAIN
    while True:
        match = pattern.match(query, position)
        assert match is not None  # it matches any text, to its end
        more = _GOES_ON.match(query, match.end()) if match.group().endswith("'") else None
        if more is None:
            return match.end()
        position = more.end()
