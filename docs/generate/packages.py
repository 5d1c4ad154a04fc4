"""The picture of the packages: their order from pyproject.toml, what each is from its docstring."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Final

from docs.generate import ROOT
from docs.generate.markdown import first_paragraph

SOURCE: Final = ROOT / "src" / "online_migrate"
_WIDTH: Final = 24
_LINE: Final = 110


def layers() -> list[list[str]]:
    """The order that import-linter holds, the uppermost first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (order,) = (c for c in contracts if c["id"] == "order")
    return [[name.strip() for name in layer.split("|")] for layer in order["layers"]]


def picture(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """A line for each layer, and below it each of its packages."""
    lines = [line for layer in layers() for line in _layer(layer)]
    return "\n".join(["```text", *lines, "```"])


def _layer(names: list[str]) -> list[str]:
    lines = [f"── {' │ '.join(names)} ".ljust(_LINE, "─")]
    for name in names:
        text = f"   {name:<{_WIDTH}}{_what(name)}"
        lines.append(text if len(text) <= _LINE else text[: _LINE - 1].rsplit(" ", 1)[0] + " …")
    return lines


def _what(name: str) -> str:
    path = SOURCE / name / "__init__.py"
    text = _read(path if path.exists() else SOURCE / f"{name}.py")
    return first_paragraph(ast.get_docstring(ast.parse(text)))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
