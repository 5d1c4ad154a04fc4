"""Where a file holds text for people: all of a document; in Python docstrings, comments and, on request,
other strings.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import Final

CODE: Final = "\x01"
"""replaces what is code, so that no phrase is found across it"""

_QUOTES: Final = re.compile(r"^[A-Za-z]*(\"\"\"|'''|\"|')|(\"\"\"|'''|\"|')$")
_BLANK: Final = frozenset(
    {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)
_JOINS: Final = frozenset({"FSTRING_START", "FSTRING_END"})
"""quotes of f-strings, which are tokens of their own from Python 3.12 on"""


def mask_document(source: str) -> str:
    """The text of a file that is text or SQL or YAML: without the marks that begin a comment's lines."""
    return re.sub(r"(?m)^([ \t]*)(--|#+|>|\|)", lambda m: m[1] + " " * len(m[2]), source)


def mask_python(source: str, *, strings: bool) -> str:
    """The source with all code replaced by :data:`CODE`; without ``strings``, docstrings are the only strings
    left.
    """
    lines = [list(re.sub(r"\S", CODE, line)) for line in source.split("\n")]
    docstrings = _docstring_lines(source)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            _put(lines, token, re.sub(r"^#:?", lambda m: " " * len(m[0]), token.string))
        elif token.type in _BLANK or tokenize.tok_name[token.type] in _JOINS:
            _put(lines, token, re.sub(r"\S", " ", token.string))
        elif tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"} and (
            strings or token.start[0] in docstrings
        ):
            _put(lines, token, _QUOTES.sub(lambda m: " " * len(m[0]), token.string))
    return "\n".join("".join(line) for line in lines)


def names_of(source: str) -> list[tuple[int, str]]:
    """Every identifier of a Python source, with its line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(t.start[0], t.string) for t in tokens if t.type == tokenize.NAME]


def _docstring_lines(source: str) -> set[int]:
    """The first lines of bare strings: docstrings, and those below an attribute."""
    return {
        node.value.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _put(lines: list[list[str]], token: tokenize.TokenInfo, text: str) -> None:
    (row, column), parts = token.start, text.split("\n")
    for i, part in enumerate(parts):
        if row - 1 + i < len(lines):
            at = column if i == 0 else 0
            lines[row - 1 + i][at : at + len(part)] = list(part)
