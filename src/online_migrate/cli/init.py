"""online-migrate init."""

from __future__ import annotations

from pathlib import Path

import click

from online_migrate.cli.common import dsn_option
from online_migrate.cli.output import say, say_note
from online_migrate.engine.proposal import Wanted, propose
from online_migrate.engine.proposal_text import plan_text
from online_migrate.errors import UsageError
from online_migrate.postgres.connection import Connector


@click.command("init")
@dsn_option
@click.option("--column", required=True, metavar="NAME", help="The column to add: it names a row's owner.")
@click.option("--references", required=True, metavar="TABLE", help="The table of the owners.")
@click.option(
    "--root",
    "roots",
    required=True,
    multiple=True,
    metavar="TABLE",
    help="A table whose rows have an owner each; may be given several times.",
)
@click.option("--exclude", multiple=True, metavar="TABLE", help="A table that no owner has; several times.")
@click.option("--schema", default="public", show_default=True, metavar="NAME", help="Where the tables are.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A new file to write; an existing one is not overwritten.  [default: standard output]",
)
def init_command(  # one for each option
    dsn: str,
    column: str,
    references: str,
    roots: tuple[str, ...],
    exclude: tuple[str, ...],
    schema: str,
    output: Path | None,
) -> None:
    """Write a plan that gives every row an owner, from the catalog of a database.  Changes nothing.

    It finds the tables from which foreign keys lead to a root, the parent that each takes its owner from, and
    the uniques that must become unique per owner.  What only you can decide is a comment: QUESTION.

    \b
    Example:
      online-migrate init --column tenant_id --references tenants --root users > plan.yaml
      online-migrate check plan.yaml
    """
    wanted = Wanted(column=column, references=references, roots=roots, exclude=exclude, schema=schema)
    connector = Connector(dsn=dsn, schema=schema)
    settings = {"default_transaction_read_only": "on"}
    with connector.open("init", settings=settings, may_be_standby=True) as connection:
        proposal = propose(connection, wanted)
    text = plan_text(proposal)
    if output is None:
        click.echo(text, nl=False)
        say_note(proposal.summary)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            f"{output} exists; it was not overwritten", remedy="name a file that does not exist: -o FILE"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write the plan to {output}: {error.strerror}", remedy="name another file: -o FILE"
        ) from error
    say(f"plan: {output}; {proposal.summary}")
