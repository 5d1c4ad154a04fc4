"""The entries of docs/runbook.md as panels of the night's dashboard: links to them work in every Grafana."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders.text import Panel as Text
from grafana_foundation_sdk.models.text import TextMode

SOURCE: Final = Path(__file__).parents[1] / "docs" / "runbook.md"
DASHBOARD: Final = "online-migrate-night"
"""the uid of the dashboard that has them"""
QUESTION: Final = "What to do?"
FIRST_ID: Final = 1_000
"""of their panels; the other panels are counted from 1"""
_LINK: Final = re.compile(r"\]\(#([\w-]+)\)")


def read_entries() -> Mapping[str, str]:
    """The runbook's entries in their order, as Markdown."""
    _, *parts = re.split(r"^## (\S+)$", SOURCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def entry_url(entry: str) -> str:
    """The URL of one entry, with the current time range and variables."""
    number = FIRST_ID + list(read_entries()).index(entry)
    return f"/d/{DASHBOARD}?viewPanel={number}&${{__url_time_range}}&${{__all_variables}}"


def entry_panels() -> Iterable[Any]:
    """A panel for each entry, two in a row; links between entries lead to their panels."""
    for number, (entry, text) in enumerate(read_entries().items(), FIRST_ID):
        linked = _LINK.sub(lambda match: f"]({entry_url(match[1])})", text)
        panel = Text().title(entry).id(number).mode(TextMode.MARKDOWN).content(linked)
        yield panel.description(f"The entry {entry} of docs/runbook.md.").span(12).height(9)
