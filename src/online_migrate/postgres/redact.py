"""Statements without their literals: what is shown of another session's SQL may hold no value of the
application.
"""

from __future__ import annotations

import re

SHOWN_CHARACTERS = 120
"""of a statement: enough to recognise it, short enough for a line"""

_LITERAL = re.compile(
    r"""(?xs)
    --[^\n]* | /\*.*?(?:\*/|$)                  # a comment may quote a value, too
  | \$(\w*)\$.*?(?:\$\1\$|$)                    # $tag$…$tag$
  | [eEbBxXnN]?'(?:[^'\\]|''|\\.)*(?:'|$)       # also one that was cut off
  | (?<![\w$"])\d[\w.]*                         # a number, but no $1 and no part of a name
    """
)


def redact(query: str) -> str:
    """The statement on one line, a ``?`` for each literal and comment."""
    return re.sub(r"\s+", " ", _LITERAL.sub("?", query)).strip()[:SHOWN_CHARACTERS]
