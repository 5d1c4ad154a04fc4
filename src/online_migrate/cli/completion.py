"""online-migrate completion."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def completion_command(shell: str) -> None:
    """Print a script by which SHELL completes commands, options, plan files, and a plan's stages, steps and
    tables.

    Names come from the plan file alone; no database is asked.

    \b
    Example:
      online-migrate completion bash > ~/.local/share/bash-completion/completions/online-migrate
      online-migrate completion zsh > "${fpath[1]}/_online-migrate"
      online-migrate completion fish > ~/.config/fish/completions/online-migrate.fish
    """
    program = click.get_current_context().find_root()
    variable = f"_{program.info_name or ''}_COMPLETE".replace("-", "_").upper()
    # source() of BashComplete starts a bash to ask for its version
    complete = _SHELLS[shell](program.command, {}, program.info_name or "", variable)
    click.echo(complete.source_template % complete.source_vars())
