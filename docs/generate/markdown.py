"""Write Markdown: tables, and texts of docstrings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars within a cell are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def sentence(text: str) -> str:
    """A description with a capital letter and a full stop, on one line, its code
    marked as Markdown marks it.
    """
    words = " ".join(prose(text).split())
    if not words:
        return ""
    first = words[0] if re.match(r"\w+[_.<(]|\w+\d|[a-z]+[A-Z]|[a-z]+:", words) else words[0].upper()
    return first + words[1:] + ("" if words.endswith((".", ":", "?")) else ".")


def prose(text: str) -> str:
    """A docstring's roles and double backticks as Markdown writes them; <names> keep their brackets."""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"(?<![`\w])<([\w.]+)>(?!`)", r"`<\1>`", text)


def first_paragraph(docstring: str | None) -> str:
    """What a thing is, on one line."""
    return " ".join((docstring or "").strip().split("\n\n")[0].split())


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
