"""`bench show`: a plug-in's card, an experiment's summary, or one trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fl.errors import UsageError
from harness.cli.cards import card_facts
from harness.cli.kinds import KINDS, kind_called, kind_of, unknown_anywhere
from harness.cli.output import console, emit_json, json_option, table


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    kind = kind_called(ctx.params.get("what") or "")
    return [name for name in (kind.load().names() if kind else []) if name.startswith(incomplete)]


@click.command("show", short_help="Show a plug-in, an experiment's results, or one trial.")
@click.argument("what")
@click.argument("name", required=False, shell_complete=_names)
@json_option
def command(what: str, name: str | None, as_json: bool) -> None:
    """Show a plug-in's card, what an experiment found, or one of its trials.

    \b
    Examples:
      bench show attack dlg                    what it does, its options, its source
      bench show defense gaussian              with its noise budget
      bench show data digits                   parts, licence, size
      bench show results/quickstart            leakage and utility by defense, budget and attack, and what
                                               each defense leaks above the floor, with 95 % intervals
      bench show results/quickstart 3f9c2a     one trial; the first digits of its id are enough
    """
    kind = kind_called(what)
    if kind is not None and name is not None:
        print_card(kind.load().get(name), as_json=as_json)
    elif kind is not None:
        raise UsageError(f"expected a name after {what!r}; `bench ls {kind.plural}` lists them")
    elif "://" in what or Path(what).exists():
        _show_results(what, name, as_json=as_json)
    elif name is None and (found := kind_of(what)) is not None:
        print_card(found.load().get(what), as_json=as_json)
    elif "/" in what:
        _show_results(what, name, as_json=as_json)
    elif name is None:
        raise unknown_anywhere(what)
    else:
        kinds = ", ".join(each.singular for each in KINDS)
        raise UsageError(f"expected {kinds} or the folder of an experiment, got {what!r}")


def _show_results(what: str, trial: str | None, *, as_json: bool) -> None:
    from harness.cli.results import show

    show(what, trial=trial, as_json=as_json)


def print_card(card: Any, *, as_json: bool) -> None:
    """Write everything a card says, for people or as JSON."""
    facts = card_facts(card)
    if as_json:
        emit_json(facts)
        return
    from rich.markup import escape

    out = console()
    out.print(f"[bold]{facts.pop('name')}[/bold]  {escape(facts.pop('summary'))}")
    listed = facts.pop("options")
    for key, value in facts.items():
        if value not in (None, {}, []):
            out.print(f"  [dim]{key.replace('_', ' ')}:[/dim] {escape(_words(value))}")
    if not listed:
        out.print("\nIt has no options.")
        return
    out.print("\n[bold]options[/bold]")
    rows = [
        (
            each["name"],
            each["type"],
            "required" if each["required"] else _words(each["default"]),
            each["description"],
        )
        for each in listed
    ]
    out.print(table(("name", "type", "default", "meaning"), rows))


def _words(value: Any) -> str:
    match value:
        case None | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case dict():
            return ", ".join(f"{key.replace('_', ' ')} {_words(each)}" for key, each in value.items())
        case list() | tuple():
            return ", ".join(map(_words, value)) or "none"
        case _:
            return str(value)
