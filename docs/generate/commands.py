"""The CLI reference: every command with its arguments and options, from click."""

from __future__ import annotations

import inspect
import re

import click

from docs.generate.markdown import sentence, table
from online_migrate.cli import main


def all_commands(page: str) -> str:  # noqa: ARG001  # every maker is given its page
    """A section for each command, in the order of a night."""
    return "\n\n".join(_section(name, command) for name, command in main.commands.items())


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"online-migrate {name}")
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join([f"online-migrate {name}", "[OPTIONS]", *(a.make_metavar(context) for a in arguments)])
    options = table(
        ("option", "default", "meaning"),
        [_row(p, context) for p in command.params if isinstance(p, click.Option)],
    )
    parts = [f"### {name}", f"```text\n{usage}\n```", _help(command.help or "")]
    return "\n\n".join(parts + ([options] if options.count("\n") > 1 else []))


def _help(text: str) -> str:
    """Paragraphs; those after click's mark for fixed lines become blocks."""
    parts = []
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        mark, _, fixed = part.partition("\b\n")
        is_fixed = not mark and fixed
        parts.append(_fixed(inspect.cleandoc(fixed)) if is_fixed else " ".join(part.split()))
    return "\n\n".join(parts)


def _fixed(text: str) -> str:
    """Lines that stay as they are; their title goes above the block."""
    title, _, rest = text.partition("\n")
    if rest and title.endswith(":"):
        return f"{title}\n\n```text\n{inspect.cleandoc(rest)}\n```"
    return f"```text\n{text}\n```"


def _row(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    is_flag = option.is_flag or option.count
    value = "" if is_flag else f" {_value(option, context)}"
    name = ", ".join(f"`{o}{value}`" for o in option.opts)
    variable = f" Environment: `{option.envvar}`." if option.envvar and option.show_envvar else ""
    text, default = _split(option.help or "")
    return name, default or _default(option), sentence(text) + variable


def _split(text: str) -> tuple[str, str]:
    """A help text and the default that it names in brackets, where click cannot know it."""
    found = re.search(r"\s*\[default: ([^\]]*)\]$", text)
    return (text, "") if found is None else (text[: found.start()], found[1])


def _value(option: click.Option, context: click.Context) -> str:
    return option.make_metavar(context).removesuffix(" RANGE")


def _default(option: click.Option) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    if option.required:
        return "required"
    return f"`{option.default}`" if option.show_default and option.default is not None else ""
