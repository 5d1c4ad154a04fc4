"""The packages' order, and that what guards it bites."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import online_migrate

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint_imports(config: Path, source: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT_IMPORTS), "--no-cache", "--config", str(config)]
    environ = {"PYTHONPATH": str(source)}
    return subprocess.run(command, env=environ, cwd=source, capture_output=True, text=True, check=False)


def test_the_order_of_the_packages_holds() -> None:
    """Each package imports only from those below it, so each can be read and tested without those above."""
    result = lint_imports(ROOT / "pyproject.toml", ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param("journal/wrong.py", "import online_migrate.engine", id="upwards"),
        pytest.param("postgres/wrong.py", "import online_migrate.plan", id="sideways"),
        pytest.param("helpers/__init__.py", "", id="a drawer without a name"),
        pytest.param("engine/wrong.py", "import rich", id="rich below observe"),
        pytest.param("observe/wrong.py", "import click", id="click outside cli"),
        pytest.param(
            "observe/page/wrong.py",
            "import online_migrate.observe.prometheus",
            id="products of observe of each other",
        ),
        pytest.param("plan/wrong.py", "import psycopg", id="a plan that does I/O"),
        pytest.param("backfill/pacer.py", "import psycopg", id="a pacer that does I/O"),
        pytest.param(
            "operations/wrong.py", "import online_migrate.operations.other", id="operations of each other"
        ),
    ],
)
def test_a_breach_of_the_order_is_found(tmp_path: Path, path: str, line: str) -> None:
    """A contract that nobody can break by mistake: each kind of breach fails the build."""
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    package = source / "online_migrate"
    (package / "operations" / "other.py").touch()
    (package / path).parent.mkdir(exist_ok=True)
    with (package / path).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(ROOT / "pyproject.toml", source)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_package_is_typed_and_has_one_version() -> None:
    """Users' type checkers see our types, and the version stands in one place."""
    package = Path(online_migrate.__file__).parent
    assert (package / "py.typed").exists()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"[{online_migrate.__version__}]" in changelog
