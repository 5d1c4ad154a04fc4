"""``python -m tests.words [PATH...]``: find what the glossary replaces, each place with what to write
instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.words.glossary import NAME_PARTS, NAMES, PHRASES
from tests.words.texts import mask_document, mask_python, names_of

ROOT: Final = Path(__file__).parent.parent.parent
WHERE: Final = (
    "src", "tests", "grafana", "benchmarks", "plans", "docs", "demo", ".ci",
    "README.md", "CHANGELOG.md", "Makefile", "pyproject.toml",
)  # fmt: skip
SUFFIXES: Final = {".py", ".md", ".sql", ".yaml", ".yml", ".toml", ".js", ".html", ".css", ""}
SPARED: Final = {"tests/words", "tests/golden"}
"""the glossary itself; what is made from the code, which is checked itself"""

_PATTERNS: Final = tuple(
    (re.compile(rf"(?<![\w-])(?:{pattern.replace(' ', chr(92) + 's+')})(?!\w)", re.IGNORECASE), instead)
    for pattern, instead in PHRASES
)
_PART: Final = re.compile(r"[a-z]+")


def search(name: str, source: str) -> Iterator[str]:
    """What a file's text has of the glossary, as ``file:line: "phrase" → what to write``; ``name`` is
    relative.
    """
    is_python = name.endswith(".py")
    text = mask_python(source, strings=not name.startswith("tests/")) if is_python else mask_document(source)
    found = []
    for pattern, instead in _PATTERNS:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, f'"{" ".join(match[0].split())}" → {instead}'))
    if is_python:
        found += [(line, f"name {n} → {NAMES[n]}") for line, n in names_of(source) if n in NAMES]
    if is_python and name.startswith("src/"):
        found += [
            (line, f"name {n} → {NAME_PARTS[part]}")
            for line, n in names_of(source)
            for part in _PART.findall(n.lower() if n.isupper() else n)
            if part in NAME_PARTS and n not in NAMES
        ]
    for line, what in sorted(set(found)):
        yield f"{name}:{line}: {what}"


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """The files below ``paths`` that hold text of ours."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT).as_posix()
            if (
                file.is_file()
                and file.suffix in SUFFIXES
                and not any(name.startswith(f"{s}/") for s in SPARED)
            ):
                yield file


def main(arguments: Sequence[str]) -> int:
    paths = [Path(a).resolve() for a in arguments] or [p for w in WHERE if (p := ROOT / w).exists()]
    found = [
        line
        for file in files_of(paths)
        if "__pycache__" not in file.parts
        for line in search(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]
    print("\n".join([*found, f"word list: {len(found)} found"] if found else ["word list: nothing found"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
