"""The word list finds what it lists, where people read it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.words.__main__ import files_of, search
from tests.words.glossary import NAMES, PHRASES

SAMPLE = '''"""A lock that was not
had in time."""
# the runner gave
# way to it
def f(lock: str) -> str:
    """Tell it anew."""
    return f"{lock} is in " "the way"
'''


def test_a_phrase_is_found_across_lines_with_what_to_write_instead() -> None:
    """Sentences wrap, in docstrings, comments and messages: a line break hides nothing."""
    found = list(search("src/sample.py", SAMPLE))
    assert [f.split(" → ")[0] for f in found] == [
        'src/sample.py:1: "not had"',
        'src/sample.py:3: "gave way"',
        'src/sample.py:6: "anew"',
        'src/sample.py:7: "in the way"',
    ]
    assert found[0].endswith("→ acquired; could not acquire")


def test_the_strings_of_a_test_are_its_data() -> None:
    """A test quotes SQL and what servers say; its docstrings and comments are ours."""
    assert [f.split(" → ")[0] for f in search("tests/sample.py", SAMPLE)][-1] == 'tests/sample.py:6: "anew"'


@pytest.mark.parametrize("name", ["README.md", "plans/x.yaml", "plans/x.sql", "Makefile"])
def test_a_document_is_read_whole(name: str) -> None:
    """In a document all text is for people."""
    assert len(list(search(name, "# what is unique\n# by\n# hand\nkey: value   # nobody reads\n"))) == 2


@pytest.mark.parametrize(
    "text",
    [
        "<master.id> stands for a value; a stand-in; a standby",
        "Is there a lock? There is none.",
        "a heartbeat; the runner had 3 s; for good reason; the way to do it; a bystander",
        "src/by_hand.py",
    ],
)
def test_plain_uses_are_not_found(text: str) -> None:
    """A list that cries wolf is switched off."""
    assert not list(search("README.md", text))


def test_names_are_found_as_whole_words() -> None:
    """Names follow the same rule; a name within another is another name."""
    found = list(search("src/sample.py", "class Crew:\n    crewed = Handle\n"))
    assert found == [f"src/sample.py:1: name Crew → {NAMES['Crew']}"]


def test_a_part_of_a_name_is_found_in_the_program() -> None:
    """A word that was replaced does not come back with something before or after it."""
    found = [
        f.split(" → ")[0] for f in search("src/sample.py", "BEAT_EVERY_S = _heirs = hungry_bencher = 1\n")
    ]
    assert found == ["src/sample.py:1: name BEAT_EVERY_S", "src/sample.py:1: name _heirs"]


def test_every_phrase_says_what_to_write_instead() -> None:
    """A rule without a remedy is a riddle."""
    assert all(instead for _, instead in PHRASES)
    assert all(NAMES.values())


def test_the_files_of_every_area_are_read() -> None:
    """A folder that is left out drifts away."""
    root = Path(__file__).parent.parent.parent
    read = {p.relative_to(root).as_posix() for p in files_of([root / "src", root / "grafana", root / "docs"])}
    assert {"src/online_migrate/errors.py", "grafana/alerts.yml", "docs/locks.md"} <= read
