"""Draws the README's pictures from a real run: ``python -m tests.observe.images``, if chromium is installed.

A throwaway server, the demo's shop, the example plan at its own pace in a process of its own; in the middle
of the backfill the page is photographed, and what ``status --watch`` shows is drawn.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from online_migrate.demo.shop import create_shop
from online_migrate.observe.snapshot.read import read_snapshot
from online_migrate.observe.terminal.live_view import render
from online_migrate.postgres.connection import Connector
from online_migrate.postgres.server import start_server
from tests.observe.conftest import FLAGS
from tests.observe.night import SLOW_PACE, free_port, gentle_plan, wait_for
from tests.observe.page.looking import looking

IMAGES = Path(__file__).parents[2] / "docs" / "images"
PACE = "pace: {batch_target: 50ms, duty: 25%, max_rows: 500}"
USERS = 40_000
MANY = 110_000
"""rows after which there is something to be seen: the third and largest table is
running for some seconds"""
WIDTH = 1180
LAST_WHOLE_ROW = """
    Math.max(...[...document.querySelectorAll("#matrix tr")].map(row => row.getBoundingClientRect().bottom).filter(end => end < innerHeight))
"""
COLUMNS = 110
"""of the terminal: all stages on one line"""


def main() -> None:
    """Write page.png and terminal.svg."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with start_server() as server, tempfile.TemporaryDirectory() as folder:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
        dsn, port = server.dsn_for("shop"), free_port()
        create_shop(dsn, users=USERS)
        plan = gentle_plan(Path(folder))
        plan.write_text(plan.read_text().replace(SLOW_PACE, PACE))
        command = [sys.executable, "-m", "online_migrate.cli", "run", str(plan), "--metrics-port", str(port)]
        environ = {**os.environ, "ONLINE_MIGRATE_DSN": dsn, "MASTER_BOT_TOKEN": "1:made-up"}
        with Path(folder, "log").open("w") as log:
            runner = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=log)
        try:
            wait_for(lambda: rows_done(dsn) > MANY, 400)
            photograph(f"http://127.0.0.1:{port}/")
            draw_terminal(dsn)
        finally:
            runner.kill()
            runner.wait()


def rows_done(dsn: str) -> int:
    with Connector(dsn=dsn).open("picture") as connection:
        snapshot = read_snapshot(connection, "multi_tenant")
    return 0 if snapshot is None else sum(step.rows_done for step in snapshot.steps)


def photograph(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), chromium_sandbox=False, args=FLAGS
        )
        with looking(browser, url, size=(WIDTH, 1500)) as look:
            look.wait_for("document.querySelectorAll('#matrix td.running').length === 1")
            look.wait_for("/^[0-9]/.test(document.querySelectorAll('#figures dd span')[3].textContent)")
            look.ask(
                "facts.textContent = facts.textContent.replace(/ · by .*/, '')"
            )  # which machine it was is private
            height = look.ask(LAST_WHOLE_ROW)
            look.page.screenshot(
                path=IMAGES / "page.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": height}
            )
        browser.close()


def draw_terminal(dsn: str) -> None:
    """As SVG, in the reader's own monospaced font: rich's asks a server for one."""
    with Connector(dsn=dsn).open("picture") as connection:
        snapshot = read_snapshot(connection, "multi_tenant")
    assert snapshot is not None
    console = Console(width=COLUMNS, height=32, record=True, force_terminal=True, file=io.StringIO())
    console.print(render(snapshot))
    svg = console.export_svg(title="online-migrate status --watch", theme=DIMMED_MONOKAI, unique_id="status")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code, ", "")
    (IMAGES / "terminal.svg").write_text(svg)


if __name__ == "__main__":
    main()
