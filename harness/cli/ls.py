"""`bench ls`: what a matrix can name."""

from __future__ import annotations

from typing import Any

import click

from defenses.catalog import adaptation
from fl.cards import AnyCard, AttackCard, DataCard, DefenseCard, MetricCard
from harness.cli.cards import budget_of, default_config
from harness.cli.kinds import KINDS, WORDS, Kind, kind_called
from harness.cli.output import console, emit_json, json_option, table


@click.command("ls", short_help="List attacks, defenses, data, models, metrics.")
@click.argument("kind", required=False, type=click.Choice(WORDS), metavar="[KIND]")
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """List what is installed: built-in plug-ins and those of other packages.

    KIND is attacks, defenses, data, models, metrics or manipulations.

    \b
    Examples:
      bench ls                    everything, by kind
      bench ls attacks
      bench ls defenses --json
    """
    chosen = kind_called(kind) if kind else None
    kinds = [each for each in KINDS if chosen in (None, each)]
    if as_json:
        listed = {each.plural: [_entry(card) for card in each.load()] for each in kinds}
        emit_json(listed[chosen.plural] if chosen else listed)
        return
    out = console()
    for each in kinds:
        _print(out, each, heading=chosen is None)


def _print(out: Any, kind: Kind, *, heading: bool) -> None:
    cards = list(kind.load())
    if heading:
        out.print(f"[bold]{kind.plural}[/bold]" + ("" if cards else ": none installed"))
    if cards:
        rows = [(card.name, *_traits(card).values(), card.summary) for card in cards]
        out.print(table(("name", *_traits(cards[0]), "summary"), rows))
        out.print()


def _entry(card: AnyCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "version": card.version,
        "package": card.origin,
        **_traits(card),
        "summary": card.summary,
        "reference": card.reference.text if card.reference else None,
    }


def _traits(card: AnyCard) -> dict[str, Any]:
    """Return what sets plug-ins of this kind apart, in a word or two each."""
    match card:
        case AttackCard():
            return {"family": card.family, "observes": ", ".join(sorted(card.observes))}
        case DefenseCard():
            budget = budget_of(card)
            return {
                "noise_budget": budget.field if budget and budget.field else None,
                "unit": budget.unit if budget and budget.unit else None,
                "adaptive": adaptation(card, default_config(card)),
            }
        case DataCard():
            return {"licence": card.licence}
        case MetricCard():
            return {"unit": card.unit or None, "leaks_more": card.leaks_more, "kind": card.kind}
        case _:
            return {}
