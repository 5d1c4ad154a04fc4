"""The page's own files, and how one file is made of them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

SCRIPTS: Final = ("figures.js", "chart.js", "matrix.js", "report.js", "page.js")
"""in their order: each may use those before it"""
TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""nothing from other origins, nothing inline: a table's name cannot become a script even if we forget to
escape it"""


@cache
def read_file(name: str) -> str:
    """The text of a file in this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def one_file(document: Mapping[str, Any]) -> str:
    """The page as one file that needs no other, with ``document`` in it; its policy names the hash of what
    is inline.
    """
    style = read_file("page.css")
    script = "\n".join(read_file(name) for name in SCRIPTS)
    icon = base64.b64encode(read_file("icon.svg").encode()).decode()
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<link rel="icon" href="data:image/svg+xml;base64,{icon}">\n<style>{style}</style>'
    )
    data = f'<script id="document" type="application/json">{_embed(document)}</script>'
    foot = f"{data}\n<script>{script}</script>"
    before, rest = read_file("page.html").split("<!-- head -->\n")
    _, rest = rest.split("<!-- /head -->\n")
    middle, rest = rest.split("<!-- scripts -->\n")
    _, after = rest.split("<!-- /scripts -->\n")
    return f"{before}{head}\n{middle}{foot}\n{after}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embed(document: Mapping[str, Any]) -> str:
    """JSON that cannot end its script element, whatever the name of a table is."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
