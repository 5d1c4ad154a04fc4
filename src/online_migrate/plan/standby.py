"""How a plan may name a standby: a libpq connection string or URI, without a password.

The text of a plan is shown, logged and kept, so a password must not be in it; and a text that cannot be read
may hold one anywhere.  Source: PostgreSQL manual, 34.1.1 "Connection Strings".
"""

from __future__ import annotations

import re
from typing import Final

_HOST: Final = r"(?:\[[0-9a-fA-F:.%]+\]|[^:@/?,\[\]\s]*)(?::[0-9]*)?"
_URI: Final = re.compile(
    rf"postgres(?:ql)?://(?:[^:@/?,\s]*@)?{_HOST}(?:,{_HOST})*(?:/[^:@/?\s]*)?(?:\?(?:\w+=[^&\s]*&?)*)?"
)
_PAIR: Final = r"\s*\w+\s*=\s*(?:'(?:[^'\\]|\\.)*'|(?:[^'\s\\]|\\.)(?:[^\s\\]|\\.)*)\s*"
_PAIRS: Final = re.compile(rf"(?:{_PAIR})+")
_IS_URI: Final = re.compile(r"postgres(?:ql)?://")
_USER_AND_PASSWORD: Final = re.compile(r"postgres(?:ql)?://[^@/]*:[^/]*@")
_ESCAPE: Final = re.compile(r"%([0-9a-fA-F]{2})")


def standby_problem(text: str) -> str:
    """Why a plan may not name a standby so; empty where it may.  Never quotes the text."""
    decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text) if _IS_URI.match(text) else text
    if "password" in decoded.lower() or _USER_AND_PASSWORD.match(text):
        return "a plan must not contain passwords: use PGPASSWORD or ~/.pgpass"
    if not (_URI if _IS_URI.match(text) else _PAIRS).fullmatch(text):
        return "it is no connection string: write host=replica-1, or postgresql://replica-1:5432/shop"
    return ""
