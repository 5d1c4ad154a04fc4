"""The units to copy in deploy/: their commands parse, and each exit code is handled once."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path
from typing import Any, Final

import click
import pytest
from ruamel.yaml import YAML

from docs.generate import ROOT
from online_migrate import errors
from online_migrate.cli import main

DEPLOY: Final = ROOT / "deploy"
UNIT: Final = DEPLOY / "online-migrate@.service"
CODES: Final = {
    kind.exit_code
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.OnlineMigrateError)
}
"""0 aside"""
AGAIN: Final = {4, 8, 9}
"""what passes by itself"""


def parse(arguments: list[str]) -> dict[str, Any]:
    """The options of a `run`."""
    assert arguments[0] == "run"
    parent = click.Context(main, **main.context_settings)
    return main.commands["run"].make_context("run", arguments[1:], parent=parent).params


def spec_of(name: str) -> Any:
    given = YAML(typ="safe").load((DEPLOY / name).read_text(encoding="utf-8"))
    assert given["apiVersion"] == "batch/v1"
    return given["spec"]["jobTemplate"]["spec"] if given["kind"] == "CronJob" else given["spec"]


@pytest.mark.parametrize("name", ["job.yaml", "cronjob.yaml"])
def test_a_job_handles_every_exit_code_once(name: str) -> None:
    rules = spec_of(name)["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules}
    assert sorted(code for values in codes.values() for code in values) == sorted(CODES)
    assert (set(codes["Count"]), codes["Ignore"]) == (AGAIN, [130])


@pytest.mark.parametrize("name", ["job.yaml", "cronjob.yaml"])
def test_the_command_of_a_job_is_one(name: str) -> None:
    """PodFailurePolicy needs restartPolicy Never; each volume is mounted."""
    pod = spec_of(name)["template"]["spec"]
    (container,) = pod["containers"]
    assert parse(container["args"])["plan"] == Path("/plans/plan.yaml")
    assert pod["restartPolicy"] == "Never"
    assert [m["name"] for m in container["volumeMounts"]] == [v["name"] for v in pod["volumes"]]
    assert all(
        r["onExitCodes"]["containerName"] == container["name"]
        for r in spec_of(name)["podFailurePolicy"]["rules"]
    )


def test_the_cron_job_is_the_job_with_a_time() -> None:
    job, night = spec_of("job.yaml"), spec_of("cronjob.yaml")
    words = night["template"]["spec"]["containers"][0]["args"]
    at = words.index("--until")
    del words[at : at + 2]
    assert night == job


def test_the_unit_handles_every_exit_code_and_its_command_is_one() -> None:
    unit = RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys as systemd spells them
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    service = unit["Service"]
    assert set(map(int, service["RestartForceExitStatus"].split())) == AGAIN
    assert set(map(int, service["SuccessExitStatus"].split())) == {75, 130}
    assert service["Restart"] == "on-abnormal"  # no other exit code starts it again
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "online-migrate"
    assert parse(arguments)["log_format"] == "json"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """With a program that exists; where there is no systemd its own parser cannot be asked."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return
    copy = tmp_path / "online-migrate@shop.service"
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/usr/local/bin/online-migrate", "/bin/true"))
    said = subprocess.run(
        [program, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert copy.name not in said.stderr + said.stdout
