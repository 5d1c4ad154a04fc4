"""A proposal as the YAML of a plan, with comments.  Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from online_migrate.engine.proposal import Owned, Proposal
from online_migrate.engine.proposal_uniques import UniqueProposal
from online_migrate.postgres.names import fits, short_name
from online_migrate.printable import printable

_WIDTH: Final = 108
_PLAIN: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WORDS_OF_YAML: Final = frozenset(["true", "false", "null", "yes", "no", "on", "off", "y", "n"])

Step = tuple[str, str, tuple[str, ...]]
"""its title within a stage, its line, and the comments above it"""


def plan_text(proposal: Proposal) -> str:
    """The whole file."""
    return "\n".join(line.rstrip() for line in _lines(proposal)) + "\n"


def _lines(proposal: Proposal) -> Iterator[str]:
    wanted = proposal.wanted
    yield from _comment(
        f"Written by `online-migrate init` from the catalog of database {proposal.database}: every row of"
        f" the set `owned` gets {wanted.column}, the owner that it belongs to. It is a proposal:"
        " read each QUESTION, change what you like, then run `online-migrate check` on this file."
    )
    yield from _left_out(proposal)
    yield f"plan: add_{_slug(wanted.column)}"
    if wanted.schema != "public":
        yield f"schema: {_q(wanted.schema)}"
    yield 'requires: {postgres: ">=14.4"}'
    yield "table_sets:"
    yield "  owned:                                             # parents before their children"
    yield from _list("    tables: ", [o.name for o in proposal.owned])
    yield "stages:"
    yield from _expansion(proposal)
    yield from _contraction(proposal)


def _expansion(proposal: Proposal) -> Iterator[str]:
    """The stages that every release can live with: owner, columns, backfill, indexes."""
    column, first = _q(proposal.wanted.column), _first(proposal)
    yield "  - stage: owner"
    yield "    steps:"
    yield from _comment(
        "QUESTION: who owns the rows of today? A row that matches `where` is taken; else one is inserted.", 6
    )
    yield f"      - ensure_row: {_map(_first_row(proposal))}"
    yield ""
    yield "  - stage: columns"
    yield "    steps:"
    type_ = _q(proposal.type)
    yield f"      - add_column: {{tables: owned, column: {column}, type: {type_}, new_rows: {first}}}"
    yield ""
    yield from _stages("backfill", list(_fills(proposal)))
    yield from _stages("indexes", list(_indexes(proposal)))


def _contraction(proposal: Proposal) -> Iterator[str]:
    """From the new uniques on, to the swap behind its gate and the statistics."""
    wanted, column = proposal.wanted, _q(proposal.wanted.column)
    names = _Names(proposal)
    new = [(u, names.of(u)) for u in proposal.uniques]
    if proposal.uniques:
        yield from _stages("uniques", [_built(proposal, u, name) for u, name in new])
    yield "  - stage: constraints"
    yield "    steps:"
    references = f"{wanted.references}.{proposal.key}"
    yield from _foreign_keys(proposal, references)
    yield f"      - set_not_null: {{tables: owned, column: {column}}}"
    yield ""
    swaps: list[Step] = [
        (
            "drop_default",
            f"drop_default: {{tables: owned, column: {column}}}",
            ("from here a statement that forgets the owner is an error",),
        ),
        ("verify_owner", f"verify_owner: {{tables: owned, column: {column}}}", ()),
        *(_swapped(u, name) for u, name in new),
    ]
    gate = f"every running release reads and writes {wanted.column}, and finds rows within one owner"
    above = _comment("The releases must change before this stage: it ends what the old ones rely on.", 2)
    yield from above
    for question in proposal.questions:
        yield from _comment(f"QUESTION: stays as it is: {question}", 2)
    yield from _stages("swap", swaps, gate=gate)
    yield "  - stage: statistics"
    yield "    steps:"
    yield "      - analyze: {tables: owned}"


def _left_out(proposal: Proposal) -> Iterator[str]:
    yield "#"
    yield "# Left out:"
    for table, reason in proposal.left_out:
        yield from _comment(f"- {table}: {reason}", hang=2)
    yield "#"


def _first(proposal: Proposal) -> str:
    return f"<first.{proposal.key}>"


def _first_row(proposal: Proposal) -> dict[str, str]:
    row = {"id": "first", "table": _q(proposal.wanted.references)}
    row["where"] = _map({_q(k): _value(v) for k, v in proposal.where.items()})
    if proposal.values:
        row["values"] = _map({_q(k): _value(v) for k, v in proposal.values.items()})
    return row


def _fills(proposal: Proposal) -> Iterator[Step]:
    """One step for all tables that take the owner in the same way, parents first."""
    groups: dict[tuple[str, ...], list[Owned]] = {}
    for owned in proposal.owned:
        key = owned.path.first
        if key is None or len(key.columns) > 1:
            groups.setdefault(("", "" if key is None else owned.name), []).append(owned)
        else:
            groups.setdefault((str(key.ref_table), key.columns[0], key.ref_columns[0]), []).append(owned)
    column = _q(proposal.wanted.column)
    for how, members in groups.items():
        tables = [o.name for o in members]
        to = f"tables: [{', '.join(map(_q, tables))}]" if len(tables) > 1 else f"table: {_q(tables[0])}"
        comments = [c for o in members for c in _about(o)]
        if not how[0]:
            line = f"backfill: {{{to}, column: {column}, value: {_first(proposal)}}}"
            yield "constant", line, tuple(comments)
            continue
        parent, on, key_column = how
        value = {"from": _map({"table": _q(parent), '"on"': _q(on), "key": _q(key_column), "column": column})}
        if any(o.path.first and o.path.nullable for o in members):
            value["else"] = _first(proposal)
        yield (
            f"{parent} by {on}",
            f"backfill: {{{to}, column: {column}, value: {_map(value)}}}",
            tuple(comments),
        )


def _about(owned: Owned) -> Iterator[str]:
    path, key = owned.path, owned.path.first
    if key is None:
        return
    way = " -> ".join([owned.name, *(str(k.ref_table) for k in path.keys)])
    if len(key.columns) > 1:
        yield (
            f"QUESTION: {owned.name} reaches its owner by {key.name} ({', '.join(key.columns)}), which has"
            " several columns: its rows get the first owner; `value: {sql: ...}` can look the owner up"
        )
    elif path.nullable:
        yield f"QUESTION: {way}: a key on this path may be NULL; such rows get the first owner (`else`)"
    if path.others:
        others = ", ".join(f"{k.ref_table} by {', '.join(k.columns)}" for k in path.others)
        yield f"QUESTION: {owned.name} also reaches its owner through {others}; {way} is taken"


def _indexes(proposal: Proposal) -> Iterator[Step]:
    column, slug = proposal.wanted.column, _slug(proposal.wanted.column)
    parts = [o.name for o in proposal.owned]
    odd = [p for p in parts if not fits(f"{p}_{slug}") or f"{p}_{slug}" in proposal.relations]
    plain = "owned" if not odd else "[" + ", ".join(_q(p) for p in parts if p not in odd) + "]"
    if len(odd) < len(parts):
        yield "all", f"create_index: {{tables: {plain}, name: <table>_{slug}, columns: [{_q(column)}]}}", ()
    taken = set(proposal.relations)
    for table in odd:
        name = _free(short_name(f"{_slug(table)}_{slug}"), taken)
        yield name, f"create_index: {{table: {_q(table)}, name: {name}, columns: [{_q(column)}]}}", ()


def _foreign_keys(proposal: Proposal, references: str) -> Iterator[str]:
    column = _q(proposal.wanted.column)
    parts = [o.name for o in proposal.owned]
    if all(fits(f"{p}_{proposal.wanted.column}_fkey") for p in parts):
        yield f"      - add_foreign_key: {{tables: owned, column: {column}, references: {references}}}"
        return
    name = short_name(f"{_slug(proposal.wanted.column)}_fkey")
    yield (
        f"      - add_foreign_key: {{tables: owned, column: {column}, references: {references},"
        f" name: {name}}}"
    )


def _built(proposal: Proposal, unique: UniqueProposal, name: str) -> Step:
    column = _q(proposal.wanted.column)
    step = {"table": _q(unique.table), "name": name}
    if unique.columns:
        step["columns"] = f"[{', '.join([column, *map(_q, unique.columns)])}]"
    else:
        own = proposal.wanted.column
        own = own if _PLAIN.fullmatch(own) and own == own.lower() else '"' + own.replace('"', '""') + '"'
        step["keys"] = f"[{', '.join(_q(k) for k in (own, *unique.keys))}]"
    step["unique"] = "true"
    if unique.include:
        step["include"] = f"[{', '.join(map(_q, unique.include))}]"
    if unique.where is not None:
        step["where"] = _q(unique.where)
    if unique.nulls_not_distinct:
        step["nulls_not_distinct"] = "true"
    return name, f"create_index: {_map(step)}", ()


def _swapped(unique: UniqueProposal, name: str) -> Step:
    old = ", ".join(unique.columns) or unique.names[0]
    how = (
        f"from: [{', '.join(map(_q, unique.columns))}]" if unique.columns else f"index: {_q(unique.names[0])}"
    )
    question = (
        f"QUESTION: may two owners have the same {old} in {unique.table}? If not, remove this swap and its"
        f" create_index, and name {', '.join(unique.names)} under `stays_global`"
    )
    return old, f"swap_unique: {{table: {_q(unique.table)}, {how}, to: {name}}}", (question,)


class _Names:
    """Names of new indexes: lower case, at most 63 bytes, none of them taken."""

    def __init__(self, proposal: Proposal) -> None:
        self._column = _slug(proposal.wanted.column)
        self._taken = set(proposal.relations)

    def of(self, unique: UniqueProposal) -> str:
        parts = unique.columns or (unique.names[0],)
        return _free(
            short_name("_".join(map(_slug, (unique.table, self._column, *parts, "key")))), self._taken
        )


def _stages(name: str, steps: list[Step], *, gate: str = "") -> Iterator[str]:
    """As many stages as are needed: one has each step's title once, and the order is kept."""
    number = 1
    while steps:
        titles = [title for title, _, _ in steps]
        end = next((n for n, title in enumerate(titles) if title in titles[:n]), len(steps))
        now, later = steps[:end], steps[end:]
        yield f"  - stage: {name}{'' if number == 1 else f'_{number}'}"
        if gate and number == 1:
            yield f"    gate: {{approval: {_q(gate)}}}"
        yield "    steps:"
        for _, line, comments in now:
            for comment in comments:
                yield from _comment(comment, 6)
            yield f"      - {line}"
        yield ""
        steps, number = later, number + 1


def _comment(text: str, indent: int = 0, hang: int = 0) -> list[str]:
    lead = " " * indent + "# "
    return textwrap.wrap(
        printable(text),
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=lead + " " * hang,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _list(lead: str, names: Iterable[str]) -> Iterator[str]:
    yield f"{lead}["
    line = ""
    for name in [f"{_q(n)}," for n in names]:
        if line and len(line) + len(name) > _WIDTH - 7:
            yield f"      {line}"
            line = ""
        line = f"{line} {name}".lstrip()
    yield f"      {line.removesuffix(',')}]"


def _map(entries: dict[str, str]) -> str:
    return "{" + ", ".join(f"{k}: {v}" for k, v in entries.items()) + "}"


def _value(value: str | int | bool) -> str:  # noqa: FBT001  # a value of a row
    return _q(value) if isinstance(value, str) else json.dumps(value)


def _q(text: str) -> str:
    """A text as a YAML scalar within brackets."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    return slug if slug[:1].isalpha() else f"c_{slug}".rstrip("_")


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name[:59]}_{number}"
    taken.add(found)
    return found
