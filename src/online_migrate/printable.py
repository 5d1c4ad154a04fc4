"""Text of others that a terminal, a log or an error message may show: control characters are written out.

Names, application_names, statements and approval notes are chosen by others.  Written as they are, they could
move the cursor, hide a line, change the title, or reorder what is read.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any, Final, TypeVar

_WRITTEN_OUT: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""C0 and C1 controls, ESC and DEL; formats such as the bidirectional overrides; surrogates; line separators.

Source: Unicode Standard, table 4-4 "General Category".
"""

T = TypeVar("T")


def printable(text: str) -> str:
    r"""``text`` on one line; each control character but a tab as an escape: ``\x1b``, ``\u202e``, ``\n``."""
    if text.isprintable():
        return text
    return "".join(_escape(c) if c != "\t" and unicodedata.category(c) in _WRITTEN_OUT else c for c in text)


def _escape(character: str) -> str:
    """Above C0 as JSON writes it, so that a line of JSON stays one."""
    if character < " ":
        return repr(character)[1:-1]
    code = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def printable_lines(text: str, *, indent: str = "") -> str:
    """The same for a text that may have several lines; ``indent`` is put before each but the first, so that a
    line break in a name cannot make what looks like a line of its own.
    """
    if text.isprintable():
        return text
    return f"\n{indent}".join(map(printable, text.split("\n")))


def printable_record(record: T) -> T:
    """A copy of a dataclass, tuple, list or dict in which every text is :func:`printable_lines`."""
    return _copy(record)  # type: ignore[no-any-return]


def _copy(value: Any) -> Any:
    if isinstance(value, str) and type(value) is str:
        return printable_lines(value)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(_copy, value))
    if isinstance(value, list):
        return [_copy(v) for v in value]
    if isinstance(value, dict):
        return {_copy(k): _copy(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _copy(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **changes)
    return value
